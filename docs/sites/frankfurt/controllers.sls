nova:
  database:
    host: db.fra.example.org
  passwords:
    keystone_admin: frankfurt-admin
    database_admin: frankfurt-root
    database_nova: frankfurt-db-nova
    database_placement: frankfurt-db-placement
    metadata: frankfurt-metadata
