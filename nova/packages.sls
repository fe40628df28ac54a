# The packages of this minion's roles alone, for images and for the first step of an upgrade.
{%- from "nova/map.jinja" import nova with context %}
{%- if nova.roles %}
include:
{%- for role in nova.roles %}
  - nova.{{ role }}.package
{%- endfor %}
{%- endif %}
