# Lets the VIP go where keepalived holds it, and takes our sections out of haproxy.cfg; haproxy
# itself and all other sections stay.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.sync
{%- if nova.keepalived %}

nova-haproxy-clean-keepalived:
  nova_unit.dead:
    - name: {{ nova.units.keepalived | json }}

nova-haproxy-clean-keepalived-files:
  file.absent:
    - names: [/etc/keepalived/keepalived.conf, /etc/sysctl.d/90-nova-formula.conf]
    - require:
      - nova_unit: nova-haproxy-clean-keepalived
{%- endif %}

nova-haproxy-clean-sections:
  nova_haproxy.sections_absent:
    - name: {{ nova.haproxy.config | json }}
    - sections: {{ (nova.sections.keys() | list + nova.sections_absent) | json }}

nova-haproxy-clean-reload:
  nova_unit.running:
    - name: {{ nova.units.haproxy | json }}
    - enable: False
    - start: False
    - reload: True
    - reads: [{{ nova.haproxy.config | json }}]
    - require:
      - nova_haproxy: nova-haproxy-clean-sections
