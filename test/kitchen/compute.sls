# Over pillar.example: this node is a compute node; the controllers are there.
nova:
  topology:
    compute: [cmp1]
