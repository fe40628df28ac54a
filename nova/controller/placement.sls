# Placement: its configuration, its schema, its web server and its unit.
{%- from "nova/map.jinja" import nova with context %}
{%- from "nova/files/server.jinja" import server %}
{%- set inside = nova.placement_in_nova %}
include:
  - nova.controller.package
  - nova.controller.database
  - nova.controller.config
  - nova.controller.accounts
{%- if inside %}
  - nova.controller.schema
{%- endif %}
{{ server(nova, 'controller-placement', 'placement', nova.users.placement, nova.ports.placement) }}
{%- if not inside %}

nova-controller-placement-directory:
  file.directory:
    - name: {{ nova.files.placement_conf | replace('/placement.conf', '') | json }}
    - user: root
    - group: {{ nova.users.placement | json }}
    - mode: '0750'
    - file_mode: '0640'
    - recurse: [user, group, mode, ignore_dirs]
    - max_depth: 1
    - require:
      - sls: nova.controller.package

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
    - imports: [salt://nova/map.jinja, salt://nova/map.py, salt://nova/parameters/]
    - awaits: {{ nova.accounts | map(attribute='name') | list | json }}
    - require:
      - file: nova-controller-placement-directory
{%- for key in nova.tls_files %}
      - file: nova-config-{{ key }}
{%- endfor %}
{%- if nova.placement_before is defined %}

nova-controller-placement-moved:
  nova_schema.placement_moved:
    - name: {{ nova.database.names.placement | json }}
    - source: {{ nova.database.names.nova_api | json }}
    - sites: {{ [nova.placement_before, nova.apache.placement.conf] | json }}
    - unit: {{ nova.units.placement | json }}
    - silent: {{ nova.placements | json }}
    - site_lock: {{ nova.site_lock | json }}
    - timeout: {{ nova.timeouts.api }}
    - connection: {{ nova.database_admin | json }}
    - require:
      - sls: nova.controller.database
      - sls: nova.controller.config
    - require_in:
      - file: nova-controller-placement-placement-server
      - nova_schema: nova-controller-placement-schema
{%- endif %}

nova-controller-placement-schema:
  nova_schema.placement_db_synced:
    - name: {{ nova.database.names.placement | json }}
    - site_lock: {{ nova.site_lock | json }}
    - connection: {{ nova.database_admin | json }}
    - require:
      - sls: nova.controller.database
      - sls: nova.controller.config
      - nova_conf: nova-controller-placement-conf
{%- endif %}

nova-controller-placement-running:
  nova_unit.running:
    - name: {{ nova.units.placement | json }}
    - units: {{ nova.unit_list | json }}
    - reads: {{ ([nova.files.nova_conf if inside else nova.files.placement_conf]
                 + nova.reads.placement) | json }}
    - listens: [[{{ nova.my_ip | json }}, {{ nova.ports.placement }}]]
    - http: {{ (nova.server_scheme ~ '://' ~ nova.my_netloc ~ ':' ~ nova.ports.placement ~ '/')
               | json }}
{%- if nova.tls.ca is defined %}
    - ca: {{ nova.tls.ca | json }}
{%- endif %}
    - one_at_a_time: {{ nova.site_lock | json }}
    - timeout: {{ nova.timeouts.service }}
    - require:
      # Else it would restart for an account that is yet to be made.
      - sls: nova.controller.accounts
      - nova_schema: nova-controller-{{ 'schema-api' if inside else 'placement-schema' }}
      - file: nova-controller-placement-placement-server
