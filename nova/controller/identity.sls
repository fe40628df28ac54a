# Keystone: users (nova.controller.accounts), services, endpoints.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.controller.config
  - nova.controller.accounts
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
