# Takes our sections out of haproxy.cfg; haproxy itself and all other sections stay.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.sync

nova-haproxy-clean-sections:
  nova_haproxy.sections_absent:
    - name: {{ nova.haproxy.config | json }}
    - sections: {{ nova.sections.keys() | list | json }}

nova-haproxy-clean-reload:
  nova_unit.running:
    - name: {{ nova.units.haproxy | json }}
    - enable: False
    - start: False
    - reload: True
    - reads: [{{ nova.haproxy.config | json }}]
    - require:
      - nova_haproxy: nova-haproxy-clean-sections
