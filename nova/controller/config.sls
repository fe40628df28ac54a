# nova.conf, the API's web server and its address, and what the console proxy reads.
{%- from "nova/map.jinja" import nova with context %}
{%- from "nova/files/server.jinja" import server %}
include:
  - nova.controller.package
  - nova.config
{{ server(nova, 'controller-config', 'api', nova.users.nova, nova.ports.api) }}
{%- if nova.metadata.enabled %}
{{ server(nova, 'controller-config', 'metadata', nova.users.nova, nova.ports.metadata) }}
{%- endif %}
{%- for path, text in nova.get('console_files', {}).items() %}

nova-controller-config-{{ path }}:
  file.managed:
    - name: {{ path | json }}
    - contents: {{ text | json }}
    - makedirs: True
    - mode: '0644'
    - require:
      - sls: nova.controller.package
{%- endfor %}

# Who requires this SLS requires nova.conf too.
nova-controller-config-nova-conf:
  test.nop:
    - name: nova.conf stands.
    - require:
      - sls: nova.config
