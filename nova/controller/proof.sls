# Before anything gets a new account: those that the formula makes are made, and each works. No
# file is written, no daemon restarted; nova.orchestrate.rotate begins with it.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.controller.database
  - nova.controller.accounts
{%- set files = {'nova': nova.files.nova_conf} %}
{%- if not nova.placement_in_nova %}
{%- do files.update({'placement': nova.files.placement_conf}) %}
{%- endif %}
{%- set required = [{'sls': 'nova.controller.database'}, {'sls': 'nova.controller.accounts'}] %}
{%- for program, path in files.items() %}

nova-controller-proof-{{ program }}-conf:
  nova_conf.accounts_work:
    - name: {{ path | json }}
    - source: salt://nova/files/openstack.conf.jinja
    - context:
        program: {{ program }}
        pillar_key: ''
    - imports: [salt://nova/map.jinja, salt://nova/map.py, salt://nova/parameters/]
    - made: {{ nova.accounts | map(attribute='name') | list | json }}
    - require: {{ required | json }}
{%- endfor %}
{%- for name, cell in nova.cells.items() %}

nova-controller-proof-cell-{{ name }}:
  nova_cell.accounts_work:
    - name: {{ name | json }}
    - database: {{ cell.logins.database | json }}
    - messaging: {{ cell.logins.messaging | json }}
    - require: {{ required | json }}
{%- endfor %}
