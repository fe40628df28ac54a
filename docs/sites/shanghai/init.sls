# Shanghai: Zed, which Debian 12 ships. It has a further cell, and a region in Beijing's Keystone.
nova:
  site: shanghai
  region: Shanghai
  topology:
    controller:
      sh-ctl1: 10.20.0.11
      sh-ctl2: 10.20.0.12
    haproxy:
      sh-lb1: 10.20.0.10
    compute: ['sh-cmp*']
    expected_computes: [sh-cmp1, sh-cmp2]
  vip: nova.sh.example.org
  management_network: 10.20.0.0/24
  messaging:
    hosts: [mq.sh.example.org]
  keystone:
    memcached_servers: ['cache.sh.example.org:11211']
  haproxy:
    bind_address: 10.20.0.9
  cells:
    cell2:
      messaging: {vhost: cell2}
  passwords:
    messaging: shanghai-messaging
