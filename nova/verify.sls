# What a person would look at after the deployment, the slow upgrade check included.
{%- from "nova/map.jinja" import nova with context %}
{%- if 'controller' in nova.roles %}
include:
  - nova.controller.verify

extend:
  nova-controller-verify-upgrade-check:
    nova_verify:
      - always: True
{%- else %}
nova-verify-elsewhere:
  test.show_notification:
    - text: Controllers verify the deployment; this minion is none.
{%- endif %}
