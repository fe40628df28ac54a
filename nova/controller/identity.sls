# Keystone: users, their roles on the service project, services, endpoints.
{%- from "nova/map.jinja" import nova with context %}
{%- set keystone = nova.keystone %}
include:
  - nova.sync
  - nova.controller.config

{%- for role in keystone.roles %}

nova-controller-identity-role-{{ role }}:
  nova_identity.role_present:
    - name: {{ role | json }}
    - auth: {{ nova.auth | json }}
{%- endfor %}
{%- for account in ('nova', 'placement') %}

nova-controller-identity-user-{{ account }}:
  nova_identity.user_present:
    - name: {{ keystone.users[account] | json }}
    - domain: {{ keystone.domain | json }}
    - password_pillar: nova:passwords:keystone_{{ account }}
    - options:
        ignore_lockout_failure_attempts: True
    - auth: {{ nova.auth | json }}

nova-controller-identity-roles-of-{{ account }}:
  nova_identity.role_assigned:
    - name: {{ keystone.users[account] | json }}
    - user_domain: {{ keystone.domain | json }}
    - roles: {{ keystone.roles | json }}
    - project: {{ keystone.service_project | json }}
    - project_domain: {{ keystone.domain | json }}
    - auth: {{ nova.auth | json }}
    - require:
      - nova_identity: nova-controller-identity-user-{{ account }}
{%- endfor %}
{%- for endpoint in nova.endpoints %}
{%- if endpoint.interface == 'public' %}

nova-controller-identity-service-{{ endpoint.service }}:
  nova_identity.service_present:
    - name: {{ endpoint.service | json }}
    - type: {{ endpoint.type | json }}
    - description: {{ endpoint.description | json }}
    - site_lock: {{ nova.site_lock | json }}
    - auth: {{ nova.auth | json }}
    - require:
      - sls: nova.controller.config
{%- endif %}

nova-controller-identity-endpoint-{{ endpoint.service }}-{{ endpoint.interface }}:
  nova_identity.endpoint_present:
    - name: {{ nova.region }} {{ endpoint.type }} {{ endpoint.interface }}
    - service_name: {{ endpoint.service | json }}
    - service_type: {{ endpoint.type | json }}
    - interface: {{ endpoint.interface }}
    - region: {{ nova.region | json }}
    - url: {{ endpoint.url | json }}
    - site_lock: {{ nova.site_lock | json }}
    - auth: {{ nova.auth | json }}
    - require:
      - nova_identity: nova-controller-identity-service-{{ endpoint.service }}
{%- endfor %}
