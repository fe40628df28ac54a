# libvirt and nova-compute, which starts when the API answers: it gives up where that is not so.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.compute.config
{%- if 'controller' in nova.roles %}
  - nova.controller.service
{%- endif %}
{%- for daemon, unit in nova.units.items() if daemon.startswith('libvirt') %}

nova-compute-service-{{ daemon }}:
  nova_unit.running:
    - name: {{ unit | json }}
    - units: {{ nova.unit_list | json }}
    - timeout: {{ nova.timeouts.service }}
    - require:
      - sls: nova.compute.config
    - require_in:
      - nova_unit: nova-compute-service-compute
{%- endfor %}
{%- for unit, reads in nova.libvirt_reads.items() %}

# A nova-compute that has lost its libvirt takes no guests until it looks again, in a minute or so.
nova-compute-service-{{ unit }}:
  nova_unit.running:
    - name: {{ unit | json }}
    - units: {{ nova.unit_list | json }}
    - reads: {{ reads | json }}
    - enable: False
    - start: False
    - timeout: {{ nova.timeouts.service }}
    - require:
      - sls: nova.compute.config
    - watch_in:
      - nova_unit: nova-compute-service-compute
{%- endfor %}
{%- if nova.migration.tls %}

nova-compute-service-migration:
  nova_unit.running:
    - name: {{ nova.units.migration | json }}
    - units: {{ nova.unit_list | json }}
    - reads: [{{ nova.migration.socket_file | json }}]
    - listens: {{ [nova.migration.listens] | json }}
    - timeout: {{ nova.timeouts.service }}
    - require:
      - nova_unit: nova-compute-service-{{ nova.migration.unit }}
    - require_in:
      - nova_unit: nova-compute-service-compute
{%- endif %}
{%- for name in ('api', 'placement') %}

nova-compute-service-{{ name }}-answers:
  nova_unit.http_answers:
    - name: {{ (nova.urls[name] ~ "/") | json }}
{%- if nova.tls.ca is defined %}
    - ca: {{ nova.tls.ca | json }}
{%- endif %}
    - timeout: {{ nova.timeouts.api }}
    - require:
      - sls: nova.compute.config
{%- if 'controller' in nova.roles %}
      - sls: nova.controller.service
{%- endif %}
    - require_in:
      - nova_unit: nova-compute-service-compute
{%- endfor %}

nova-compute-service-compute:
  nova_unit.running:
    - name: {{ nova.units.compute | json }}
    - units: {{ nova.unit_list | json }}
    - reads: {{ ([nova.files.nova_conf, nova.compute_conf | default(nova.files.nova_conf)]
                 + nova.reads.nova) | json }}
    - timeout: {{ nova.timeouts.service }}
