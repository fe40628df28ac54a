# Rotation, on the master: new accounts and passwords of the pillar all over a site, then the
# retired ones away; docs/rotation.md. Interrupted anywhere, the same command goes on: it waits for
# the job that an interrupted one has left on a minion.
# timeout: a minion too busy to answer is waited for so long, and not Salt's few seconds.
{%- set topology = pillar.get('nova', {}).get('topology', {}) %}
{%- set controllers = topology.get('controller', {}) | list %}
{%- set computes = topology.get('compute', []) | join(' or ') %}
{%- if not controllers %}
nova-orchestrate-rotate-topology:
  test.fail_without_changes:
    - name: The master's own pillar has no nova:topology with controllers.
    - comment: >-
        Give the master, whose id ends in _master, the site's nova:topology in the pillar's top
        file, or add the topology to the command, as pillar=….
    - failhard: True
{%- else %}

# One that is away would keep what it has.
nova-orchestrate-rotate-present:
  salt.function:
    - name: test.ping
    - tgt: {{ (controllers + ([computes] if computes else [])) | join(' or ') | json }}
    - tgt_type: compound
    - expect_minions: True

# New accounts are made, and each works, before anything gets one.
nova-orchestrate-rotate-proof:
  salt.state:
    - tgt: {{ controllers[0] | json }}
    - queue: True
    - timeout: 300
    - sls: nova.controller.proof
    - require:
      - salt: nova-orchestrate-rotate-present
{%- for controller in controllers %}

nova-orchestrate-rotate-{{ controller }}:
  salt.state:
    - tgt: {{ controller | json }}
    - queue: True
    - timeout: 300
    - sls: nova
    - require:
      - salt: nova-orchestrate-rotate-{{ 'proof' if loop.first else loop.previtem }}
{%- endfor %}
{%- if computes %}

nova-orchestrate-rotate-computes:
  salt.state:
    - tgt: {{ computes | json }}
    - tgt_type: compound
    - batch: {{ pillar.get('batch', '25%') | json }}
    - failhard: True
    - queue: True
    - timeout: 300
    - sls: nova
    - require:
      - salt: nova-orchestrate-rotate-{{ controllers[-1] }}

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
      - salt: nova-orchestrate-rotate-{{ 'all-computes' if computes else controllers[-1] }}
{%- endif %}
