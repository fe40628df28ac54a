# A controller. Placement starts before Nova's schema is made: meanwhile the balancer comes to
# trust it. Keystone, which hashes passwords, is waited for last.
{%- from "nova/map.jinja" import nova with context %}
{#- Keystone hashes passwords while Salt renders, too: a third of what a run with nothing to do
    takes. A bare minion has no module yet, and salt-ssh renders elsewhere. -#}
{%- if salt.pack is mapping and 'nova_identity.ask_ahead' in salt %}
{%- do salt['nova_identity.ask_ahead'](nova.ahead) %}
{%- endif %}
include:
  - nova.controller.package
  - nova.controller.database
  - nova.controller.config
  - nova.controller.placement
  - nova.controller.schema
  - nova.controller.identity
  - nova.controller.service
  - nova.controller.discovery
