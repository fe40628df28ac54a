# Who gets what: all minions of a site by the prefix of their ids, secrets of the databases and of
# Keystone's administrator by role.
base:
  '*':
    - common
  'bj-*':
    - china
    - beijing
  'bj-ctl*':
    - china.controllers
    - beijing.controllers
  'sh-*':
    - china
    - shanghai
  'sh-ctl*':
    - china.controllers
    - shanghai.controllers
  'fra-*':
    - frankfurt
  'fra-ctl*':
    - frankfurt.controllers
