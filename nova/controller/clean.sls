# Undoes a controller. Endpoints, users and databases are the site's: they go only where nova:clean
# says so, the databases each by its name.
{%- from "nova/map.jinja" import nova with context %}
{%- set clean = nova.clean %}
include:
  - nova.sync
{%- for daemon in ('api', 'metadata', 'novncproxy', 'scheduler', 'conductor', 'placement')
      if daemon in nova.units %}

nova-controller-clean-{{ daemon }}:
  nova_unit.dead:
    - name: {{ nova.units[daemon] }}
{%- endfor %}
{%- if clean.identity %}
{%- for endpoint in nova.endpoints %}

nova-controller-clean-endpoint-{{ endpoint.service }}-{{ endpoint.interface }}:
  nova_identity.endpoint_absent:
    - name: {{ nova.region }} {{ endpoint.type }} {{ endpoint.interface }}
    - service_name: {{ endpoint.service | json }}
    - service_type: {{ endpoint.type | json }}
    - interface: {{ endpoint.interface }}
    - region: {{ nova.region | json }}
    - auth: {{ nova.auth | json }}
{%- endfor %}
{%- for account in ('placement', 'nova') %}

nova-controller-clean-user-{{ account }}:
  nova_identity.user_absent:
    - name: {{ nova.keystone.users[account] | json }}
    - domain: {{ nova.keystone.domain | json }}
    - auth: {{ nova.auth | json }}
{%- endfor %}
{%- endif %}
{%- set cells = nova.cells.values() | selectattr('make') | map(attribute='database.name') | list %}
{%- for name in (nova.database.names.values() | list) + cells %}

nova-controller-clean-database-{{ name }}:
{%- if name in clean.databases %}
  nova_database.absent:
    - name: {{ name | json }}
    - connection: {{ nova.database_admin | json }}
{%- else %}
  test.show_notification:
    - text: Database {{ name }} is kept; to drop it, name it under nova:clean:databases.
{%- endif %}
{%- endfor %}
{%- if clean.packages %}

nova-controller-clean-packages:
  pkg.removed:
    - pkgs: {{ nova.packages.controller | json }}
{%- endif %}

nova-controller-clean-config:
  file.absent:
    - names: {{ (nova.files.values() | list
                 + (['/etc/systemd/system/' ~ nova.units.api ~ '.service.d/nova-formula.conf',
                     '/etc/systemd/system/' ~ nova.units.metadata ~ '.service.d/nova-formula.conf',
                     '/etc/systemd/system/' ~ nova.units.placement ~ '.service.d/nova-formula.conf']
                    if nova.uwsgi is defined else [])) | json }}
