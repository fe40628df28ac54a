# Rotation, on the master: new accounts and passwords of the pillar all over a site, then the
# retired ones away; docs/rotation.md. Interrupted anywhere, the same command goes on: it waits for
# the job that an interrupted one has left on a minion.
{%- set topology = pillar.get('nova', {}).get('topology', {}) %}
{%- set controllers = topology.get('controller', {}) | list %}
{%- set balancers = topology.get('haproxy', {}) | list %}
{%- set computes = topology.get('compute', []) | join(' or ') %}
{%- set last = 'all-ready' if balancers else controllers[-1:] | join ~ '-applied' %}
# Controller by controller, or a word on the topology that is missing.
include:
  - nova.orchestrate.rolling
{%- if controllers %}

# One that is away would keep what it has.
nova-orchestrate-rotate-present:
  salt.function:
    - name: test.ping
    - timeout: 60
    - tgt: {{ (controllers + balancers + ([computes] if computes else [])) | join(' or ') | json }}
    - tgt_type: compound
    - expect_minions: True
    - order: 1
    - failhard: True

# New accounts are made, and each works, before anything gets one.
nova-orchestrate-rotate-proof:
  salt.state:
    - tgt: {{ controllers[0] | json }}
    - queue: True
    - timeout: 300
    - sls: nova.controller.proof
    - order: 2
    - failhard: True
{%- if computes %}

nova-orchestrate-rotate-computes:
  salt.state:
    - tgt: {{ computes | json }}
    - tgt_type: compound
    - batch: {{ pillar.get('batch', '25%') | json }}
    - failhard: True
    - queue: True
    - timeout: 1800
    - sls: nova
    - require:
      - salt: nova-orchestrate-rolling-{{ last }}

# A batch passes over who does not answer; here each has to, and to be as it should.
nova-orchestrate-rotate-all-computes:
  salt.state:
    - tgt: {{ computes | json }}
    - tgt_type: compound
    - queue: True
    - timeout: 300
    - sls: nova.compute
    - require:
      - salt: nova-orchestrate-rotate-computes
{%- endif %}

nova-orchestrate-rotate-retired:
  salt.state:
    - tgt: {{ controllers[0] | json }}
    - queue: True
    - timeout: 300
    - sls: nova.controller.retired
    - require:
      - salt: nova-orchestrate-{{ 'rotate-all-computes' if computes else 'rolling-' ~ last }}
{%- endif %}
