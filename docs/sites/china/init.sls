# What Beijing and Shanghai share: two regions of one Keystone, so that its service users, their
# passwords and the names of services stand here, once.
nova:
  keystone:
    auth_url: https://keystone.cn.example.org:5000/v3
    service_project: services
  passwords:
    keystone_nova: china-nova
    keystone_placement: china-placement
    keystone_neutron: china-neutron
