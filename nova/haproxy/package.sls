# haproxy itself, and what SELinux must let it do: to reach any port.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.sync
  - nova.repository

nova-haproxy-package-installed:
  nova_package.installed:
    - pkgs: {{ nova.packages.haproxy | json }}
    - hold_daemons: []
{%- if nova.selinux_booleans %}
    - reload_modules: True
{%- endif %}
{%- for boolean in nova.selinux_booleans %}

nova-haproxy-package-{{ boolean }}:
  selinux.boolean:
    - name: {{ boolean }}
    - value: True
    - persist: True
    - require:
      - nova_package: nova-haproxy-package-installed
{%- endfor %}
