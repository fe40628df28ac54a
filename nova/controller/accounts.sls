# Keystone: the service project, users, their roles on it.
{%- from "nova/map.jinja" import nova with context %}
{%- set keystone = nova.keystone %}
include:
  - nova.sync

# Keystone hashes while the states before these look at packages, databases and files. Not while
# Salt renders: a bare minion that has looked for a module before nova.sync does not find it after.
nova-controller-identity-read-ahead:
  nova_identity.read_ahead:
    - users:
{%- for account in nova.accounts %}
        {{ account.name | json }}: {{ ("nova:passwords:" ~ account.password) | json }}
{%- endfor %}
    - project: {{ keystone.service_project | json }}
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
