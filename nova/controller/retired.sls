# Once every service of every cell is heard of, accounts that the pillar retires go. Which compute
# nodes still have one, no controller knows: nova.orchestrate.rotate sees to that before.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.sync

nova-controller-retired-services:
  nova_verify.services_report:
    - name: {{ nova.site | json }}
    - timeout: {{ nova.timeouts.service }}
{%- for name in nova.retired.database %}

{{ ('nova-controller-retired-database-' ~ name) | json }}:
  nova_database.user_absent:
    - name: {{ name | json }}
    - hosts: {{ nova.database.grant_hosts | json }}
    - unused_within: {{ nova.timeouts.service }}
    - connection: {{ nova.database_admin | json }}
    - require:
      - nova_verify: nova-controller-retired-services
{%- endfor %}
{%- for name in nova.retired.keystone %}

{{ ('nova-controller-retired-keystone-' ~ name) | json }}:
  nova_identity.user_absent:
    - name: {{ name | json }}
    - domain: {{ nova.keystone.domain | json }}
    - service: nova
    - region: {{ nova.region | json }}
    - auth: {{ nova.auth | json }}
    - require:
      - nova_verify: nova-controller-retired-services
{%- for database in nova.retired.database %}
      - nova_database: {{ ('nova-controller-retired-database-' ~ database) | json }}
{%- endfor %}
{%- endfor %}
