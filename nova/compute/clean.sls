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
