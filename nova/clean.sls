# Undoes this minion's roles, in reverse. What holds data stays unless nova:clean names it.
{%- from "nova/map.jinja" import nova with context %}
{%- if nova.roles %}
include:
{%- for role in nova.roles | reverse %}
  - nova.{{ role }}.clean
{%- endfor %}
{%- endif %}
