# This node's keys, on the authority the CAs, and what they have signed. First of all, so that the
# nodes have asked and are answered while packages are installed.
{%- from "nova/map.jinja" import nova with context %}
{%- set its = nova.certificates | default(none) %}
include:
  - nova.sync
{%- if its %}

nova-certificates-requested:
  nova_certificate.requested:
    - name: {{ its.directory | json }}
    - identities: {{ its.identities | json }}
    - renew: {{ its.renew }}
{%- if its.signs %}

nova-certificates-signed:
  nova_certificate.signed:
    - name: {{ its.home | json }}
    - grants: {{ its.grants | json }}
    - expected: {{ its.expected | json }}
    - days: {{ its.days }}
    - renew: {{ its.renew }}
    - timeout: {{ nova.timeouts.certificates }}
    - require:
      - nova_certificate: nova-certificates-requested
{%- endif %}

nova-certificates-obtained:
  nova_certificate.obtained:
    - name: {{ its.directory | json }}
    - authority: {{ its.authority | json }}
    - identities: {{ its.identities | json }}
    - authorities: {{ its.authorities | json }}
    - renew: {{ its.renew }}
    - timeout: {{ 2 * nova.timeouts.certificates }}
    - require:
      - nova_certificate: nova-certificates-{{ 'signed' if its.signs else 'requested' }}
{%- endif %}
