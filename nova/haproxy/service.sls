# haproxy runs, has read its configuration, and listens.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.haproxy.config

nova-haproxy-service-running:
  nova_unit.running:
    - name: {{ nova.units.haproxy | json }}
    - reload: True
    - reads: {{ ([nova.haproxy.config] + nova.balancer_reads) | json }}
    - listens: {{ nova.listens | json }}
    - timeout: {{ nova.timeouts.service }}
    - require:
      - sls: nova.haproxy.config
