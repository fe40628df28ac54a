# Migration between compute nodes over SSH: this node's key, what its peers' keys may do here, and
# whose host keys it believes. See docs/migration.md.
{%- from "nova/map.jinja" import nova with context %}
{%- set migration = nova.migration %}
include:
  - nova.compute.package
  - nova.compute.service
{%- if migration.ssh %}
{%- set program = migration.command.split()[0] %}
{%- if migration.shell %}

nova-compute-migration-shell:
  user.present:
    - name: {{ nova.users.nova | json }}
    - shell: {{ migration.shell | json }}
    - createhome: False
    - require:
      - sls: nova.compute.package
    - require_in:
      - nova_migration: nova-compute-migration-peers
{%- endif %}

nova-compute-migration-program:
  file.managed:
    - name: {{ program | json }}
    - source: salt://nova/files/migration.py
    - makedirs: True
    - dir_mode: '0755'
    - user: root
    - group: root
    - mode: '0755'
    - require:
      - sls: nova.compute.package

nova-compute-migration-directory:
  file.directory:
    - name: {{ migration.key.rpartition('/')[0] | json }}
    - user: root
    - group: {{ nova.users.nova | json }}
    - mode: '0750'
    # Its parent is nova's, who could lead root anywhere by a link.
    - allow_symlink: False
    - require:
      - sls: nova.compute.package

nova-compute-migration-key:
  nova_migration.key_present:
    - name: {{ migration.key | json }}
    - user: {{ nova.users.nova | json }}
    - require:
      - file: nova-compute-migration-directory

nova-compute-migration-server:
  nova_unit.running:
    - name: {{ nova.units.ssh | json }}
    - units: {{ nova.unit_list | json }}
    - timeout: {{ nova.timeouts.service }}
    - require:
      - sls: nova.compute.package

nova-compute-migration-published:
  nova_migration.published:
    - name: {{ migration.key | json }}
    - known_as: {{ migration.names | json }}
    - addresses: {{ migration.addresses | json }}
    - require:
      - nova_migration: nova-compute-migration-key
      - nova_unit: nova-compute-migration-server

# Last, for by then the other nodes of the same run have published theirs.
nova-compute-migration-peers:
  nova_migration.peers_trusted:
    - name: {{ (migration.key.rpartition('/')[0] ~ '/authorized_keys') | json }}
    - known_hosts: /etc/ssh/ssh_known_hosts
    - command: {{ migration.command | json }}
    - user: {{ nova.users.nova | json }}
    - minions: {{ migration.minions | json }}
    - expected: {{ nova.topology.expected_computes | json }}
    - keys: {{ migration['keys'] | json }}
    - taken: {{ migration.taken | json }}
    - timeout: {{ nova.timeouts.migration }}
    - require:
      - file: nova-compute-migration-program
      - nova_migration: nova-compute-migration-published
      - sls: nova.compute.service
{%- endif %}
