# Keystone: the service project, users, their roles on it, services, endpoints.
{%- from "nova/map.jinja" import nova with context %}
{%- set keystone = nova.keystone %}
include:
  - nova.sync
  - nova.controller.config

# Keystone hashes while the states before these look at packages, databases and files.
nova-controller-identity-read-ahead:
  nova_identity.read_ahead:
    - users:
{%- for account in nova.accounts %}
        {{ account.name | json }}: {{ ("nova:passwords:" ~ account.password) | json }}
{%- endfor %}
    - domain: {{ keystone.domain | json }}
    - paths: {{ nova.asked | json }}
    - region: {{ nova.region | json }}
    - auth: {{ nova.auth | json }}
    - order: first

nova-controller-identity-project:
  nova_identity.project_present:
    - name: {{ keystone.service_project | json }}
    - domain: {{ keystone.domain | json }}
    - auth: {{ nova.auth | json }}
{%- for role in nova.accounts | map(attribute='roles') | sum(start=[]) | unique %}

nova-controller-identity-role-{{ role }}:
  nova_identity.role_present:
    - name: {{ role | json }}
    - auth: {{ nova.auth | json }}
{%- endfor %}
{%- for account in nova.accounts %}

nova-controller-identity-user-{{ account.service }}:
  nova_identity.user_present:
    - name: {{ account.name | json }}
    - domain: {{ keystone.domain | json }}
    - email: {{ account.email | default(None) | json }}
    - password_pillar: {{ ("nova:passwords:" ~ account.password) | json }}
    - options:
        ignore_lockout_failure_attempts: True
    - auth: {{ nova.auth | json }}

nova-controller-identity-roles-of-{{ account.service }}:
  nova_identity.role_assigned:
    - name: {{ account.name | json }}
    - user_domain: {{ keystone.domain | json }}
    - roles: {{ account.roles | json }}
    - project: {{ keystone.service_project | json }}
    - project_domain: {{ keystone.domain | json }}
    - auth: {{ nova.auth | json }}
    - require:
      - nova_identity: nova-controller-identity-project
      - nova_identity: nova-controller-identity-user-{{ account.service }}
{%- endfor %}
{%- for service in nova.services %}

nova-controller-identity-service-{{ service.name }}:
  nova_identity.service_present:
    - name: {{ service.name | json }}
    - type: {{ service.type | json }}
    - description: {{ service.description | json }}
    - site_lock: {{ nova.site_lock | json }}
    - auth: {{ nova.auth | json }}
    - require:
      - sls: nova.controller.config
{%- endfor %}
{%- for endpoint in nova.endpoints %}

nova-controller-identity-endpoint-{{ endpoint.service }}-{{ endpoint.interface }}:
  nova_identity.endpoint_present:
    - name: {{ [nova.region, endpoint.type, endpoint.interface] | join(' ') | json }}
    - service_name: {{ endpoint.service | json }}
    - service_type: {{ endpoint.type | json }}
    - interface: {{ endpoint.interface | json }}
    - region: {{ nova.region | json }}
    - url: {{ endpoint.url | json }}
    - site_lock: {{ nova.site_lock | json }}
    - auth: {{ nova.auth | json }}
    - require:
      - nova_identity: nova-controller-identity-service-{{ endpoint.service }}
{%- endfor %}
