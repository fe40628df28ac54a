# Schema and cells, in the order that nova wants; once in the site, whoever comes first.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.controller.database
  - nova.controller.config

nova-controller-schema-api:
  nova_schema.api_db_synced:
    - name: {{ nova.database.names.nova_api | json }}
    - site_lock: {{ nova.site_lock | json }}
    - connection: {{ nova.database_admin | json }}
    - require:
      - sls: nova.controller.database
      - sls: nova.controller.config

nova-controller-schema-cell0:
  nova_cell.cell0_mapped:
    - name: cell0
    - database: {{ nova.database.names.nova_cell0 | json }}
    - site_lock: {{ nova.site_lock | json }}
    - api_database: {{ nova.database.names.nova_api | json }}
    - connection: {{ nova.database_admin | json }}
    - require:
      - nova_schema: nova-controller-schema-api

nova-controller-schema-cell1:
  nova_cell.present:
    - name: {{ nova.cell | json }}
    - site_lock: {{ nova.site_lock | json }}
    - api_database: {{ nova.database.names.nova_api | json }}
    - connection: {{ nova.database_admin | json }}
    - require:
      - nova_cell: nova-controller-schema-cell0

nova-controller-schema-main:
  nova_schema.db_synced:
    - name: {{ nova.database.names.nova | json }}
    - cell0: {{ nova.database.names.nova_cell0 | json }}
    - site_lock: {{ nova.site_lock | json }}
    - connection: {{ nova.database_admin | json }}
    - require:
      - nova_cell: nova-controller-schema-cell1
{%- for name, cell in nova.cells.items() %}

nova-controller-schema-cell-{{ name }}:
  nova_cell.present:
    - name: {{ name | json }}
    - database: {{ cell.database | json }}
    - messaging: {{ cell.messaging | json }}
    - disabled: {{ cell.disabled | json }}
    - site_lock: {{ nova.site_lock | json }}
    - api_database: {{ nova.database.names.nova_api | json }}
    - connection: {{ nova.database_admin | json }}
    - require:
      - nova_schema: nova-controller-schema-main

nova-controller-schema-of-cell-{{ name }}:
  nova_schema.cell_db_synced:
    - name: {{ name | json }}
    - database: {{ cell.database.name | json }}
    - site_lock: {{ nova.site_lock | json }}
    - require:
      - nova_cell: nova-controller-schema-cell-{{ name }}
    - require_in:
      - nova_cell: nova-controller-schema-cells-recorded
{%- endfor %}

nova-controller-schema-cells-recorded:
  nova_cell.recorded:
    - name: {{ nova.files.cells | json }}
    - require:
      - nova_schema: nova-controller-schema-main
