# Our sections in haproxy.cfg, edited in place, and none of a second metadata API that is gone; all
# others stay as they are, to the byte.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.haproxy.package
{%- if nova.certificates %}
  - nova.certificates.placed
{%- endif %}

nova-haproxy-config-sections:
  nova_haproxy.sections_present:
    - name: {{ nova.haproxy.config | json }}
    - sections: {{ nova.sections | json }}
    - absent: {{ nova.sections_absent | json }}
    - require:
      - sls: nova.haproxy.package
{%- if nova.certificates %}
      - sls: nova.certificates.placed
{%- endif %}
