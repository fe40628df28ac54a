# The second metadata API: a secret and a port of its own, so that Neutron's agents can go over to
# another secret one after another (docs/rotation.md). Where the pillar has none, nothing of it stays.
{%- from "nova/map.jinja" import nova with context %}
{%- from "nova/files/server.jinja" import server %}
include:
  - nova.controller.package
  - nova.config
{%- set metadata = nova.metadata %}
{%- if metadata.stale_unit %}

# What a pillar or a release before had; from some release on Apache serves, where a daemon did.
nova-controller-metadata-second-stopped:
  nova_unit.dead:
    - name: {{ metadata.stale_unit | json }}
    - units: {{ nova.unit_list | json }}
{%- endif %}
{%- if metadata.absent %}

nova-controller-metadata-second-gone:
  file.absent:
    - names: {{ metadata.absent | json }}
{%- if metadata.stale_unit %}
    - require:
      - nova_unit: nova-controller-metadata-second-stopped
{%- endif %}
{%- endif %}
{%- if metadata.second %}

nova-controller-metadata-second-secret:
  nova_conf.managed:
    - name: {{ nova.files.metadata_second | json }}
    - source: salt://nova/files/metadata-second.env.jinja
    - user: root
    - group: {{ nova.users.nova | json }}
    - context: {}
    - ini: False
    - imports: [salt://nova/map.jinja, salt://nova/map.py, salt://nova/parameters/]
    - require:
      - sls: nova.config
{{ server(nova, 'controller-metadata', 'metadata_second', nova.users.nova,
          nova.ports.metadata_second, nova.files.metadata_second) }}
{%- if metadata.own_unit %}

# After its drop-in, which says what it runs: half of it would be no unit to systemd.
nova-controller-metadata-second-unit:
  file.managed:
    - name: /etc/systemd/system/{{ metadata.own_unit }}.service
    - source: salt://nova/files/metadata-second.service.jinja
    - template: jinja
    - mode: '0644'
    - context: {{ {'user': nova.users.nova, 'environment': nova.files.metadata_second,
                   'command': nova.metadata_command | default(none),
                   'first': nova.units.api} | json }}
    - require:
      - nova_conf: nova-controller-metadata-second-secret
{%- if 'metadata_second' in nova.get('uwsgi', {}) %}
      - file: nova-controller-metadata-metadata_second-server
{%- endif %}
{%- endif %}
{%- elif metadata.site and salt['file.file_exists'](metadata.site) %}

# Not absent: that Apache has to read it anew, the time of a file tells that is there.
nova-controller-metadata-second-site:
  file.managed:
    - name: {{ metadata.site | json }}
    - contents: '# Managed by Salt (nova formula): there is no second metadata API any more.'
    - mode: '0644'
{%- endif %}
