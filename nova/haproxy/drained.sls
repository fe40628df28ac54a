# Controllers that get no new connection from this balancer: those that the pillar key nova_drained
# lists, and no others. For nova.orchestrate.rolling.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.sync
{%- if nova.sections %}

nova-haproxy-drained:
  nova_haproxy.drained:
    - name: {{ nova.haproxy.socket | json }}
    - sections: {{ nova.sections.keys() | list | json }}
    - servers: {{ pillar.get('nova_drained', []) | json }}
    # Who looks at a console does so for hours.
    - lasting: [openstack_nova_port_{{ nova.ports.novnc }}]
{%- if nova.metadata.second %}
    # Its servers come with the rollout.
    - unserved: [openstack_nova_port_{{ nova.ports.metadata_second }}]
{%- endif %}
    - timeout: {{ nova.timeouts.service }}
{%- endif %}
