# What a person would look at after the deployment, as states that fail with one sentence each.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.sync

nova-controller-verify-compute:
  nova_verify.api_answers:
    - name: compute
    - path: {{ nova.asked.compute[0] | json }}
    - ahead: {{ nova.asked | json }}
    - region: {{ nova.region | json }}
    - auth: {{ nova.auth | json }}
    - timeout: {{ nova.timeouts.api }}

nova-controller-verify-placement:
  nova_verify.api_answers:
    - name: placement
    - path: {{ nova.asked.placement[0] | json }}
    - region: {{ nova.region | json }}
    - auth: {{ nova.auth | json }}
    - timeout: {{ nova.timeouts.api }}
    - require:
      - nova_verify: nova-controller-verify-compute

nova-controller-verify-images:
  nova_verify.api_answers:
    - name: image
    - path: {{ nova.asked.image[0] | json }}
    - region: {{ nova.region | json }}
    - auth: {{ nova.auth | json }}
    - require:
      - nova_verify: nova-controller-verify-compute

nova-controller-verify-services:
  nova_verify.services_up:
    - name: {{ nova.site | json }}
    - hosts: [{{ nova.host | json }}]
    - region: {{ nova.region | json }}
    - auth: {{ nova.auth | json }}
    - require:
      - nova_verify: nova-controller-verify-compute

nova-controller-verify-hypervisors:
  nova_verify.hypervisors_present:
    - name: {{ nova.site | json }}
    - expected: {{ nova.topology.expected_computes | json }}
    - region: {{ nova.region | json }}
    - auth: {{ nova.auth | json }}
    - require:
      - nova_verify: nova-controller-verify-compute

nova-controller-verify-catalog:
  nova_verify.catalog_complete:
    - name: {{ nova.region | json }}
    - region: {{ nova.region | json }}
    - endpoints: {{ nova.endpoints | json }}
    - auth: {{ nova.auth | json }}
    - require:
      - nova_verify: nova-controller-verify-compute

nova-controller-verify-cells:
  nova_verify.cells_mapped:
    - name: {{ nova.cell | json }}
    - require:
      - nova_verify: nova-controller-verify-compute

nova-controller-verify-upgrade-check:
  nova_verify.upgrade_checked:
    - name: {{ nova.site | json }}
    - stamp: {{ nova.files.upgrade_check | json }}
    - require:
      - nova_verify: nova-controller-verify-placement
