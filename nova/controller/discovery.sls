# Compute nodes that have registered are mapped to the cell, by one controller of the site.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.controller.service
{%- if 'compute' in nova.roles %}
  - nova.compute.service
{%- endif %}

nova-controller-discovery-hosts:
  nova_cell.hosts_discovered:
    - name: {{ nova.site | json }}
    - expected: {{ nova.topology.expected_computes | json }}
    - timeout: {{ nova.timeouts.discovery }}
    - site_lock: {{ nova.site_lock | json }}
    - api_database: {{ nova.database.names.nova_api | json }}
    - connection: {{ nova.database_admin | json }}
    - require:
      - sls: nova.controller.service
{%- if 'compute' in nova.roles %}
      - sls: nova.compute.service
{%- endif %}
