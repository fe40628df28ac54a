# Ports of this minion's roles in a zone of firewalld's, where that runs: RedHat systems.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.sync
{%- if nova.open_ports %}

nova-firewall-ports:
  nova_firewall.ports_open:
    - name: {{ nova.firewall.zone | json }}
    - unit: {{ nova.firewall.unit }}
    - ports: {{ nova.open_ports | json }}
{%- endif %}
