# haproxy itself, and what SELinux must let it do: to reach any port.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.sync
  - nova.repository

nova-haproxy-package-installed:
  pkg.installed:
    - pkgs: {{ nova.packages.haproxy | json }}
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
      - pkg: nova-haproxy-package-installed
{%- endfor %}
