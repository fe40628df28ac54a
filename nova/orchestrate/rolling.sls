# The formula on one controller after another, each drained in all balancers before, but for those
# with nothing left to do: `salt-run state.orchestrate nova.orchestrate.rolling`. What fails stops
# it. Rotation goes the same way.
# timeout: Salt asks after so many seconds whether a minion is at work, and gives up so many after
# the last yes; one that is too busy to answer in ten is lost then. So the whole formula, which may
# take 25 minutes, gets more than that. A minion that is away is found by the steps of 300.
{%- set topology = pillar.get('nova', {}).get('topology', {}) %}
{%- set balancers = topology.get('haproxy', {}).keys() | list %}
{%- set controllers = topology.get('controller', {}).keys() | list %}
{%- if not controllers %}
nova-orchestrate-rolling-topology:
  test.fail_without_changes:
    - name: The master's own pillar has no nova:topology with controllers.
    - comment: >-
        Give the master, whose id ends in _master, the site's nova:topology in the pillar's top
        file, or add the topology to the command, as pillar=….
    - failhard: True
{%- endif %}
{%- for controller in controllers %}

nova-orchestrate-rolling-{{ controller }}-due:
  salt.state:
    - tgt: {{ controller | json }}
    - expect_minions: True
    - queue: True
    - timeout: 300
    - sls: nova
    - test: True
{%- if not loop.first %}
    - require:
      - salt: nova-orchestrate-rolling-{{ loop.previtem }}-applied
{%- endif %}
{%- if balancers %}

# Who was drained before is put back, whether by this run or by one that was killed.
nova-orchestrate-rolling-{{ controller }}-drained:
  salt.state:
    - tgt: {{ balancers | json }}
    - tgt_type: list
    - expect_minions: True
    - queue: True
    - timeout: 300
    - sls: nova.haproxy.drained
    - pillar: {nova_drained: [{{ controller | json }}]}
    - onchanges:
      - salt: nova-orchestrate-rolling-{{ controller }}-due
{%- endif %}

nova-orchestrate-rolling-{{ controller }}-applied:
  salt.state:
    - tgt: {{ controller | json }}
    - expect_minions: True
    - queue: True
    - timeout: 1800
    - sls: nova
{%- if balancers %}
    - require:
      - salt: nova-orchestrate-rolling-{{ controller }}-drained
{%- endif %}
    - onchanges:
      - salt: nova-orchestrate-rolling-{{ controller }}-due
{%- if loop.last and balancers %}

nova-orchestrate-rolling-all-ready:
  salt.state:
    - tgt: {{ balancers | json }}
    - tgt_type: list
    - expect_minions: True
    - queue: True
    - timeout: 300
    - sls: nova.haproxy.drained
    - pillar: {nova_drained: []}
    - require:
      - salt: nova-orchestrate-rolling-{{ controller }}-applied
{%- endif %}
{%- endfor %}
