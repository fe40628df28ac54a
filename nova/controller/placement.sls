# Placement: its configuration, its schema, its web server and its unit.
{%- from "nova/map.jinja" import nova with context %}
{%- from "nova/files/server.jinja" import server %}
include:
  - nova.controller.package
  - nova.controller.database
  - nova.controller.config

nova-controller-placement-conf:
  nova_conf.managed:
    - name: {{ nova.files.placement_conf | json }}
    - source: salt://nova/files/openstack.conf.jinja
    - user: root
    - group: {{ nova.users.placement | json }}
    - mode: '0640'
    - context:
        program: placement
        pillar_key: placement_config
    - require:
      - sls: nova.controller.package
{{ server(nova, 'controller-placement', 'placement', nova.users.placement, nova.ports.placement) }}

nova-controller-placement-schema:
  nova_schema.placement_db_synced:
    - name: {{ nova.database.names.placement | json }}
    - site_lock: {{ nova.site_lock | json }}
    - connection: {{ nova.database_admin | json }}
    - require:
      - sls: nova.controller.database
      - sls: nova.controller.config
      - nova_conf: nova-controller-placement-conf

nova-controller-placement-running:
  nova_unit.running:
    - name: {{ nova.units.placement | json }}
    - units: {{ nova.unit_list | json }}
    - reads: {{ ([nova.files.placement_conf] + nova.reads.placement) | json }}
    - listens: [[{{ nova.my_ip | json }}, {{ nova.ports.placement }}]]
    - http: {{ ('http://' ~ nova.my_netloc ~ ':' ~ nova.ports.placement ~ '/') | json }}
    - one_at_a_time: {{ nova.site_lock | json }}
    - timeout: {{ nova.timeouts.service }}
    - require:
      - nova_schema: nova-controller-placement-schema
      - file: nova-controller-placement-placement-server
