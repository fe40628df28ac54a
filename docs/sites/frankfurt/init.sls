# Frankfurt: 2025.1 on Rocky 9 with compute nodes that run Debian 13; a Keystone of its own.
nova:
  site: frankfurt
  region: Frankfurt
  release: '2025.1'
  topology:
    controller:
      fra-ctl1: 10.30.0.11
    haproxy:
      fra-lb1: 10.30.0.10
    compute: ['fra-cmp*']
    expected_computes: [fra-cmp1]
  vip: nova.fra.example.org
  management_network: 10.30.0.0/24
  messaging:
    hosts: [mq.fra.example.org]
    quorum_queues: true
  keystone:
    auth_url: https://keystone.fra.example.org:5000/v3
    memcached_servers: ['cache.fra.example.org:11211']
  haproxy:
    bind_address: 10.30.0.9
    mode: http
  timeouts:
    api: 300
  config:
    DEFAULT:
      instance_usage_audit: null        # not what common.sls says
  passwords:
    messaging: frankfurt-messaging
    keystone_nova: frankfurt-nova
    keystone_placement: frankfurt-placement
    keystone_neutron: frankfurt-neutron
