# A compute node: packages, nova.conf, libvirt and nova-compute; migration where the pillar has it.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.compute.package
  - nova.compute.config
  - nova.compute.service
{%- if nova.migration.ssh %}
  - nova.compute.migration
{%- endif %}
