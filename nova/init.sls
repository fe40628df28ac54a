# What this minion's roles ask for; see README.md, "How it works".
{%- set tolerant = True %}
{%- from "nova/map.jinja" import nova with context %}

{%- if nova.faults %}
{%- set words = "Nothing was touched. Correct the pillar:\n" ~ nova.faults | join('\n') %}
nova-pillar:
  test.fail_without_changes:
    # In test mode Salt has another comment in this one's place.
    - name: {{ (words if opts.test else 'The pillar is not right; nothing was touched.') | json }}
    - comment: {{ words | json }}
    - failhard: True

{%- elif nova.roles or nova.certificates | default(none) %}
{%- if nova.warnings %}
nova-pillar-warnings:
  test.configurable_test_state:
    - name: The pillar has names that are about to go, or that this release does not read.
    - changes: False
    - result: True
    - comment: The pillar is taken as it is meant; see the warnings.
    - warnings: {{ nova.warnings | json }}

{% endif %}
include:
{%- if nova.certificates %}
  - nova.certificates
{%- endif %}
{%- if nova.open_ports | default([]) %}
  - nova.firewall
{%- endif %}
{%- for role in nova.roles %}
  - nova.{{ role }}
{%- endfor %}
{%- if 'controller' in nova.roles %}
  - nova.controller.verify
{%- if nova.flavors or nova.aggregates or nova.quotas.default or nova.quotas.projects %}
  - nova.controller.resources
{%- endif %}

extend:
  nova-controller-verify-compute:
    nova_verify:
      - require:
        - sls: nova.controller.discovery
{%- endif %}

{%- else %}
nova-no-role:
  test.show_notification:
    - text: >-
        This minion has no role: name its id under nova:topology, or give it nova:roles.
{%- endif %}
