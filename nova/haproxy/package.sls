# haproxy itself.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.sync
  - nova.repository

nova-haproxy-package-installed:
  pkg.installed:
    - pkgs: {{ nova.packages.haproxy | json }}
