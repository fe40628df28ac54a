# Undoes this minion's roles, in reverse. What holds data stays unless nova:clean names it.
{%- from "nova/map.jinja" import nova with context %}
{%- if nova.roles %}
include:
{%- for role in nova.roles | reverse %}
  - nova.{{ role }}.clean
{%- endfor %}
{%- endif %}
{%- if nova.certificates | default(none) %}

nova-clean-certificates:
  nova_certificate.absent:
    - name: {{ nova.certificates.directory | json }}
{%- if nova.roles %}
    - require:
{%- for role in nova.roles %}
      - sls: nova.{{ role }}.clean
{%- endfor %}
{%- endif %}
{%- endif %}
