# nova.conf, one for all roles of this node: an option comes from parameters/config.yaml or from
# the pillar's nova:config.
{%- from "nova/map.jinja" import nova with context %}
{%- set roles = nova.roles | reject('equalto', 'haproxy') | list %}
include:
  - nova.sync
{%- if nova.certificates %}
  - nova.certificates.placed
{%- endif %}
{%- for role in roles %}
  - nova.{{ role }}.package
{%- endfor %}
{%- if roles %}

nova-config-directory:
  file.directory:
    - name: {{ nova.files.nova_conf | replace('/nova.conf', '') | json }}
    - user: root
    - group: {{ nova.users.nova | json }}
    - mode: '0750'
    - file_mode: '0640'
    # What lies in it, not below: others' directories have owners of their own.
    - recurse: [user, group, mode, ignore_dirs]
    - max_depth: 1
    - require:
{%- for role in roles %}
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
    - imports: [salt://nova/map.jinja, salt://nova/map.py, salt://nova/parameters/]
    - awaits: {{ nova.accounts | map(attribute='name') | list | json }}
{%- if 'controller' not in roles %}
    - timeout: {{ nova.timeouts.api }}
{%- endif %}
    - require:
      - file: nova-config-directory
{%- if nova.certificates %}
      - sls: nova.certificates.placed
{%- endif %}
{%- for key, path in nova.tls_files.items() %}

# A daemon that looks for a file that is not there stops, and does not start again.
nova-config-{{ key }}:
  file.exists:
    - name: {{ path | json }}
    - require_in:
      - nova_conf: nova-config-nova-conf
{%- endfor %}
{%- endif %}
