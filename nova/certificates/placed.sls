# Certificates and keys in the files that the pillar names; their groups come with the packages.
{%- from "nova/map.jinja" import nova with context %}
{%- set its = nova.certificates | default(none) %}
include:
  - nova.certificates.signed
{%- for role in nova.roles %}
  - nova.{{ role }}.package
{%- endfor %}
{%- for place in (its or {}).get('places', []) %}

nova-certificates-placed-{{ place.path }}:
  nova_certificate.placed:
    - name: {{ place.path | json }}
    - directory: {{ its.directory | json }}
{%- for key, value in place.items() if key != 'path' %}
    - {{ key }}: {{ value | json }}
{%- endfor %}
    - require:
      - nova_certificate: nova-certificates-obtained
{%- for role in nova.roles %}
      - sls: nova.{{ role }}.package
{%- endfor %}
{%- endfor %}
