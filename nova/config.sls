# nova.conf, one for all roles of this node: an option comes from parameters/config.yaml or from
# the pillar's nova:config.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.sync
{%- for role in nova.roles if role != 'haproxy' %}
  - nova.{{ role }}.package
{%- endfor %}

nova-config-directory:
  file.directory:
    - name: {{ nova.files.nova_conf | replace('/nova.conf', '') | json }}
    - user: root
    - group: {{ nova.users.nova | json }}
    - mode: '0750'
    - require:
{%- for role in nova.roles if role != 'haproxy' %}
      - sls: nova.{{ role }}.package
{%- endfor %}

nova-config-nova-conf:
  nova_conf.managed:
    - name: {{ nova.files.nova_conf | json }}
    - source: salt://nova/files/openstack.conf.jinja
    - user: root
    - group: {{ nova.users.nova | json }}
    - mode: '0640'
    - context:
        program: nova
        pillar_key: config
    - require:
      - file: nova-config-directory
