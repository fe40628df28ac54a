# Undoes a compute node. One with guests is left alone unless nova:clean:computes names it.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.sync

nova-compute-clean-guests:
  nova_verify.no_guests:
    - name: /var/lib/nova/instances
    - given_up: {{ nova.clean.computes | json }}
    - failhard: True

nova-compute-clean-unit:
  nova_unit.dead:
    - name: {{ nova.units.compute | json }}
    - require:
      - nova_verify: nova-compute-clean-guests
{%- if nova.migration.ssh %}
{%- set directory = nova.migration.key.rpartition('/')[0] %}

nova-compute-clean-migration-unpublished:
  nova_migration.unpublished:
    - name: {{ nova.migration.key | json }}
    - require:
      - nova_unit: nova-compute-clean-unit

nova-compute-clean-migration-peers:
  nova_migration.peers_trusted:
    - name: {{ (directory ~ '/authorized_keys') | json }}
    - known_hosts: /etc/ssh/ssh_known_hosts
    - command: {{ nova.migration.command | json }}
    - user: {{ nova.users.nova | json }}
    - minions: []
    - require:
      - nova_unit: nova-compute-clean-unit

nova-compute-clean-migration-files:
  file.absent:
    - names: {{ [nova.migration.key, nova.migration.key ~ '.pub',
                 nova.migration.command.split()[0]] | json }}
    - require:
      - nova_migration: nova-compute-clean-migration-peers
{%- endif %}
{%- if nova.migration.tls %}

nova-compute-clean-migration-socket:
  nova_unit.dead:
    - name: {{ nova.units.migration | json }}
    - require:
      - nova_unit: nova-compute-clean-unit

nova-compute-clean-migration-units:
  file.absent:
    - names: {{ [nova.migration.unit_file, nova.migration.socket_file] | json }}
    - require:
      - nova_unit: nova-compute-clean-migration-socket
{%- endif %}
{%- if nova.clean.packages %}

nova-compute-clean-packages:
  pkg.removed:
    - pkgs: {{ nova.packages.compute | json }}
    - require:
      - nova_unit: nova-compute-clean-unit
{%- endif %}
{%- if 'controller' not in nova.roles %}

nova-compute-clean-config:
  file.absent:
    - names: {{ ([nova.files.nova_conf] + ([nova.compute_conf] if nova.compute_conf is defined else []))
                | json }}
    - require:
      - nova_unit: nova-compute-clean-unit
{%- endif %}
