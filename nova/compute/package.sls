# Packages of a compute node; their daemons stay down until they are configured.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.sync
  - nova.repository

nova-compute-package-installed:
  nova_package.installed:
    - pkgs: {{ nova.packages.compute | json }}
{%- if nova.migration.ssh %}
    # sshd too is started by a state, as test mode tells.
    - hold_daemons: ['nova-*', 'placement-*', {{ (nova.units.ssh ~ '*') | json }}]
{%- endif %}
{%- for option, value in nova.get('package_options', {}).items() %}
    - {{ option | json }}: {{ value | json }}
{%- endfor %}
