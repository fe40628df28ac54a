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
{%- if nova.qemu_options %}

# Of an option that stands in the file twice the first counts; as shipped, all are comments.
nova-compute-config-qemu:
  file.blockreplace:
    - name: {{ nova.qemu.conf | json }}
    - marker_start: '# Managed by Salt (nova formula), to the end of it.'
    - marker_end: '# The end of what Salt manages (nova formula).'
    - content: |
{%- for option, value in nova.qemu_options.items() %}
        {{ option }} = {{ value | json }}
{%- endfor %}
    - append_if_not_found: True
    - show_changes: True
    - require:
      - sls: nova.compute.package
{%- endif %}
{%- if nova.migration.tls %}

# The socket can start only while the daemon does not run: a restart of the daemon brings it.
nova-compute-config-migration-unit:
  file.managed:
    - name: {{ nova.migration.unit_file | json }}
    - contents: |
        # Managed by Salt (nova formula).
        [Unit]
        Requires={{ nova.units.migration }}
        After={{ nova.units.migration }}
    - makedirs: True
    - mode: '0644'
    - require:
      - sls: nova.compute.package

nova-compute-config-migration-socket:
  file.managed:
    - name: {{ nova.migration.socket_file | json }}
    - contents: |
        # Managed by Salt (nova formula).
        [Socket]
        ListenStream=
        ListenStream={{ nova.migration.netloc }}
        FreeBind=true
    - makedirs: True
    - mode: '0644'
    - require:
      - sls: nova.compute.package
{%- endif %}

# Who requires this SLS requires nova.conf too.
nova-compute-config-nova-conf:
  test.nop:
    - name: nova.conf stands.
    - require:
      - sls: nova.config
