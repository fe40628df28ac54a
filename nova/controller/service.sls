# The controller's daemons: those that are stopped come up side by side; a restart that is due is
# made conductor first, API last, and one controller at a time.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.controller.config
  - nova.controller.metadata
  - nova.controller.placement
  - nova.controller.schema
  - nova.controller.accounts
  - nova.controller.identity
{%- for unit in nova.get('unwanted_units', []) %}

nova-controller-service-{{ unit }}:
  nova_unit.dead:
    - name: {{ unit | json }}
    - units: {{ nova.unit_list | json }}
    - require:
      - sls: nova.controller.config
{%- endfor %}

# Nova's daemons give up at their start where Placement does not answer at the VIP yet.
nova-controller-service-placement-answers:
  nova_unit.http_answers:
    - name: {{ (nova.urls.placement ~ "/") | json }}
{%- if nova.tls.ca is defined %}
    - ca: {{ nova.tls.ca | json }}
{%- endif %}
    - timeout: {{ nova.timeouts.api }}
    - require:
      - sls: nova.controller.placement
{%- set listens = {'api': nova.ports.api, 'metadata': nova.ports.metadata,
                   'metadata_second': nova.ports.metadata_second | default(none),
                   'novncproxy': nova.ports.novnc} %}
{%- set daemons = {} %}
{%- for daemon in ('conductor', 'scheduler', 'consoleauth', 'novncproxy', 'metadata',
                   'metadata_second', 'api')
      if daemon in nova.units and (daemon != 'metadata' or nova.metadata.enabled) %}
{%- do daemons.update({daemon: nova.units[daemon]}) %}
{%- endfor %}

nova-controller-service-started:
  nova_unit.started:
    - name: nova
    - units: {{ daemons.values() | list | json }}
    - timeout: {{ nova.timeouts.service }}
    - require:
      - nova_unit: nova-controller-service-placement-answers
      - sls: nova.controller.config
      - sls: nova.controller.metadata
      - sls: nova.controller.schema
      - sls: nova.controller.accounts
      - sls: nova.controller.identity
{%- for daemon, unit in daemons.items() %}

nova-controller-service-{{ daemon }}:
  nova_unit.running:
    - name: {{ unit | json }}
    - units: {{ nova.unit_list | json }}
    - reads: {{ ([nova.files.nova_conf, nova.files.cells] + nova.reads[daemon] | default([])
                 + nova.reads.nova) | json }}
{%- if daemon in listens %}
    - listens: [[{{ nova.my_ip | json }}, {{ listens[daemon] }}]]
{%- endif %}
{%- if daemon in ('api', 'metadata', 'metadata_second') %}
    - http: {{ (nova.server_scheme ~ '://' ~ nova.my_netloc ~ ':' ~ listens[daemon] ~ '/') | json }}
{%- if nova.tls.ca is defined %}
    - ca: {{ nova.tls.ca | json }}
{%- endif %}
{%- endif %}
    - one_at_a_time: {{ nova.site_lock | json }}
    - timeout: {{ nova.timeouts.service }}
    - require:
      - nova_unit: nova-controller-service-started
{%- endfor %}
