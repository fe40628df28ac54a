# Over pillar.example: one node is controller and compute node, with no balancer before it.
nova:
  topology:
    controller: null
    compute: null
    expected_computes: null
  roles: [controller, compute]
  vip: 10.20.0.60
  management_network: 10.20.0.0/24
