# A controller, in the order of the deployment guide.
include:
  - nova.firewall
  - nova.controller.package
  - nova.controller.database
  - nova.controller.config
  - nova.controller.identity
  - nova.controller.schema
  - nova.controller.placement
  - nova.controller.service
  - nova.controller.discovery
