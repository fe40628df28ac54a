# The load balancer's share: haproxy, and the sections of Nova and Placement in it.
include:
  - nova.haproxy.package
  - nova.haproxy.config
  - nova.haproxy.service
