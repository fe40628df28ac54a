# Over pillar.example: this node is the load balancer.
nova:
  topology:
    haproxy: {lb1: 10.20.0.41}
