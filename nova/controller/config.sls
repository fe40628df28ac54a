# nova.conf, the API's uwsgi and its address, and what the console proxy reads.
{%- from "nova/map.jinja" import nova with context %}
{%- from "nova/files/uwsgi.jinja" import uwsgi %}
include:
  - nova.controller.package
  - nova.config
{%- if nova.uwsgi is defined %}
{{ uwsgi(nova, 'controller-config', 'api', nova.users.nova, nova.ports.api) }}
{%- if nova.metadata.enabled %}
{{ uwsgi(nova, 'controller-config', 'metadata', nova.users.nova, nova.ports.metadata) }}
{%- endif %}
{%- endif %}
{%- for path, text in nova.get('console_files', {}).items() %}

nova-controller-config-{{ path }}:
  file.managed:
    - name: {{ path }}
    - contents: {{ text | json }}
    - mode: '0644'
    - require:
      - sls: nova.controller.package
{%- endfor %}
