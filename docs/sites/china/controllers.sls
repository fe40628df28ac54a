nova:
  passwords:
    keystone_admin: china-admin
