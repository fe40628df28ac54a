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
{%- for endpoint in nova.endpoints if endpoint.interface == 'public' %}

nova-controller-clean-service-{{ endpoint.service }}:
  nova_identity.service_absent:
    - name: {{ endpoint.service | json }}
    - type: {{ endpoint.type | json }}
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
{%- for name in nova.database.names.values() %}

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
{%- for path in nova.files.values() %}
      - {{ path }}
{%- endfor %}
{%- for daemon in ('api', 'metadata', 'placement') if daemon in uwsgi %}
      - /etc/systemd/system/{{ nova.units[daemon] }}.service.d/nova-formula.conf
{%- endfor %}
{%- for site in apache.values() %}
      - {{ site.conf }}
{%- endfor %}
{%- if apache %}

# Other services may live under the same Apache: it only forgets ours.
nova-controller-clean-apache:
  service.running:
    - name: {{ nova.units.placement }}
    - reload: True
    - watch:
      - file: nova-controller-clean-config
{%- endif %}
