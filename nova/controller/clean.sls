# Undoes a controller. Endpoints, users and databases are the site's: they go only where nova:clean
# says so, the databases each by its name.
{%- from "nova/map.jinja" import nova with context %}
{%- set clean = nova.clean %}
include:
  - nova.sync
{%- set uwsgi, apache = nova.get('uwsgi', {}), nova.get('apache', {}) %}
{%- for daemon in ('api', 'metadata', 'novncproxy', 'consoleauth', 'scheduler', 'conductor',
                   'placement') if daemon in nova.units and daemon not in apache %}

nova-controller-clean-{{ daemon }}:
  nova_unit.dead:
    - name: {{ nova.units[daemon] | json }}
{%- endfor %}
{%- if nova.metadata_unit is defined %}

nova-controller-clean-metadata_second:
  nova_unit.dead:
    - name: {{ nova.metadata_unit | json }}
{%- endif %}
{%- if clean.identity %}
{%- for endpoint in nova.endpoints %}

nova-controller-clean-endpoint-{{ endpoint.service }}-{{ endpoint.interface }}:
  nova_identity.endpoint_absent:
    - name: {{ [nova.region, endpoint.type, endpoint.interface] | join(' ') | json }}
    - service_name: {{ endpoint.service | json }}
    - service_type: {{ endpoint.type | json }}
    - interface: {{ endpoint.interface | json }}
    - region: {{ nova.region | json }}
    - auth: {{ nova.auth | json }}
{%- endfor %}
{%- for service in nova.services %}

nova-controller-clean-service-{{ service.name }}:
  nova_identity.service_absent:
    - name: {{ service.name | json }}
    - type: {{ service.type | json }}
    - region: {{ nova.region | json }}
    - auth: {{ nova.auth | json }}
{%- endfor %}
{%- for account in nova.accounts | reverse %}

nova-controller-clean-user-{{ account.service }}:
  nova_identity.user_absent:
    - name: {{ account.name | json }}
    - domain: {{ nova.keystone.domain | json }}
    - service: {{ account.service | json }}
    - region: {{ nova.region | json }}
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
    - names:
{%- for path in (nova.files.values() | list + nova.metadata.files) | unique %}
      - {{ path | json }}
{%- endfor %}
{%- for daemon in ('api', 'metadata', 'placement') if daemon in uwsgi %}
      - /etc/systemd/system/{{ nova.units[daemon] }}.service.d/nova-formula.conf
{%- endfor %}
{%- for daemon, site in apache.items() if daemon != 'metadata_second' %}
      - {{ site.conf | json }}
{%- endfor %}
{%- if apache %}

# Other services may live under the same Apache: it only forgets ours.
nova-controller-clean-apache:
  service.running:
    - name: {{ nova.units.placement | json }}
    - reload: True
    - watch:
      - file: nova-controller-clean-config
{%- endif %}
