# A controller. Placement, whose users come before it, starts before Nova's schema is made: meanwhile
# the balancer comes to trust it.
include:
  - nova.controller.package
  - nova.controller.database
  - nova.controller.config
  - nova.controller.placement
  - nova.controller.schema
  - nova.controller.identity
  - nova.controller.service
  - nova.controller.discovery
