nova:
  database:
    host: db.sh.example.org
  passwords:
    database_admin: shanghai-root
    database_nova: shanghai-db-nova
    database_placement: shanghai-db-placement
    metadata: shanghai-metadata
