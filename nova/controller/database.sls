# Databases, accounts and grants of Nova and Placement.
{%- from "nova/map.jinja" import nova with context %}
{%- set names = nova.database.names %}
{%- set cells = nova.cells.values() | selectattr('make') | map(attribute='database.name') | list %}
{%- set accounts = {'nova': [names.nova_api, names.nova, names.nova_cell0] + cells} %}
{%- if not nova.placement_in_nova %}
{%- do accounts.update({'placement': [names.placement]}) %}
{%- endif %}
include:
  - nova.sync
{%- if nova.certificates %}
  - nova.certificates.placed
{%- endif %}
{%- for account, databases in accounts.items() %}
{%- for database in databases %}

nova-controller-database-{{ database }}:
  nova_database.present:
    - name: {{ database | json }}
    - character_set: {{ nova.database.character_set | json }}
    - connection: {{ nova.database_admin | json }}
{%- if nova.certificates %}
    - require:
      - sls: nova.certificates.placed
{%- endif %}
    - require_in:
      - nova_database: nova-controller-database-user-{{ account }}
{%- endfor %}

nova-controller-database-user-{{ account }}:
  nova_database.user_present:
    - name: {{ nova.database.users[account] | json }}
    - hosts: {{ nova.database.grant_hosts | json }}
    - password_pillar: nova:passwords:database_{{ account }}
{%- if nova.database.require_tls is defined %}
    - require_ssl: {{ nova.database.require_tls | json }}
{%- endif %}
    - grants: {{ dict.fromkeys(databases, 'ALL PRIVILEGES') | json }}
    - connection: {{ nova.database_admin | json }}
{%- endfor %}
