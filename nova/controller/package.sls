# Packages of a controller; their daemons stay down until they are configured.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.sync
  - nova.repository

nova-controller-package-installed:
  nova_package.installed:
    - pkgs: {{ nova.packages.controller | json }}
{%- for option, value in nova.get('package_options', {}).items() %}
    - {{ option | json }}: {{ value | json }}
{%- endfor %}
