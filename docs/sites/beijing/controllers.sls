nova:
  database:
    host: db.bj.example.org
  passwords:
    database_admin: beijing-root
    database_nova: beijing-db-nova
    database_placement: beijing-db-placement
    metadata: beijing-metadata
