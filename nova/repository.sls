# Package repositories that the pillar names (nova:repositories), as pkgrepo.managed takes them.
{%- from "nova/map.jinja" import nova with context %}
{%- for name, options in nova.get('repositories', {}).items() %}

{{ ("nova-repository-" ~ name) | json }}:
  pkgrepo.managed:
    - name: {{ options.name | default(name) | json }}
{%- for key, value in options.items() if key != 'name' %}
    - {{ key | json }}: {{ value | json }}
{%- endfor %}
{%- endfor %}
