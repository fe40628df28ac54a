# A compute node: packages, nova.conf, libvirt and nova-compute.
include:
  - nova.compute.package
  - nova.compute.config
  - nova.compute.service
