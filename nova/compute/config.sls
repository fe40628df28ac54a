# What nova-compute reads: nova.conf, and on Debian nova-compute.conf, which would win over it.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.compute.package
  - nova.config
{%- if nova.compute_conf is defined %}

nova-compute-config-compute-conf:
  file.managed:
    - name: {{ nova.compute_conf | json }}
    - contents: '# Managed by Salt (nova formula): every option of this node stands in nova.conf.'
    - user: root
    - group: {{ nova.users.nova | json }}
    - mode: '0640'
    - require:
      - sls: nova.compute.package
{%- endif %}

# Who requires this SLS requires nova.conf too.
nova-compute-config-nova-conf:
  test.nop:
    - name: nova.conf stands.
    - require:
      - sls: nova.config
