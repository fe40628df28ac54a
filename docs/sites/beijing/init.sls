# Beijing: Stein on CentOS 7, behind a balancer that runs Debian 12.
nova:
  site: beijing
  region: Beijing
  release: stein
  topology:
    controller:
      bj-ctl1: 10.10.0.11
      bj-ctl2: 10.10.0.12
    haproxy:
      bj-lb1: 10.10.0.10
    compute: ['bj-cmp*']
    expected_computes: [bj-cmp1, bj-cmp2]
  vip: nova.bj.example.org
  management_network: 10.10.0.0/24
  messaging:
    hosts: [mq1.bj.example.org, mq2.bj.example.org]
  keystone:
    memcached_servers: ['cache.bj.example.org:11211']
  haproxy:
    bind_address: 10.10.0.9
  repositories:
    openstack-stein:
      humanname: CentOS-7 - OpenStack stein
      baseurl: https://mirror.bj.example.org/centos/7/cloud/x86_64/openstack-stein/
      gpgcheck: 1
      gpgkey: file:///etc/pki/rpm-gpg/RPM-GPG-KEY-CentOS-SIG-Cloud
  passwords:
    messaging: beijing-messaging
