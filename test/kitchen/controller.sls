# Over pillar.example: this node is the site's only controller, and no compute node is waited for.
nova:
  topology:
    controller: {ctl1: 10.20.0.60}
    expected_computes: []
