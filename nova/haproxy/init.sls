# The load balancer's share: haproxy, and the sections of Nova and Placement in it.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.haproxy.package
  - nova.haproxy.config
  - nova.haproxy.service
{%- if nova.keepalived %}
  - nova.haproxy.keepalived
{%- endif %}
