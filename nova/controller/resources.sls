# What the site offers: nova:flavors, nova:aggregates and nova:quotas, once the API answers. What
# pillar does not name stays.
{%- from "nova/map.jinja" import nova with context %}
{%- set once = [{'site_lock': nova.site_lock}, {'region': nova.region}, {'auth': nova.auth}] %}
{%- set ready = [{'require': [{'nova_verify': 'nova-controller-verify-compute'}]}] %}
include:
  - nova.controller.verify
{%- for kind in ('flavor', 'aggregate') %}
{%- for name, wanted in nova[kind ~ 's'].items() if wanted is not none %}

{{ ('nova-controller-resources-' ~ kind ~ '-' ~ name) | json }}:
  nova_compute.{{ kind }}_present: {{ ([{'name': name}, wanted] + once + ready) | json }}
{%- endfor %}
{%- endfor %}
{%- if nova.quotas.default %}

nova-controller-resources-quotas-default:
  nova_compute.default_quotas_present: {{ ([{'quotas': nova.quotas.default}] + once + ready) | json }}
{%- endif %}
{%- for project, quotas in nova.quotas.projects.items() %}

{{ ('nova-controller-resources-quotas-of-' ~ project) | json }}:
  nova_compute.quotas_present: {{ ([{'name': project, 'domain': nova.keystone.domain,
                                    'quotas': quotas}] + once + ready) | json }}
{%- endfor %}
