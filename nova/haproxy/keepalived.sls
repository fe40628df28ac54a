# The VIP, held by the balancers between them; nothing without nova:haproxy:keepalived.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.haproxy.package
  - nova.haproxy.config
  - nova.haproxy.service
{%- if nova.keepalived %}

# All sections of haproxy.cfg may listen on the VIP, those of others too: so where a balancer
# does not hold it, the kernel is to allow it, not one `bind` line or another.
nova-haproxy-keepalived-bind:
  file.managed:
    - name: /etc/sysctl.d/90-nova-formula.conf
    - contents: |
        # Managed by Salt (nova formula): haproxy listens on the VIP wherever that stands.
        {{ nova.keepalived.bind_elsewhere }} = 1
    - mode: '0644'

nova-haproxy-keepalived-bind-allowed:
  nova_unit.running:
    - name: systemd-sysctl
    - reads: [/etc/sysctl.d/90-nova-formula.conf]
    - require:
      - file: nova-haproxy-keepalived-bind
    - require_in:
      - nova_unit: nova-haproxy-service-running

nova-haproxy-keepalived-conf:
  nova_conf.managed:
    - name: /etc/keepalived/keepalived.conf
    - source: salt://nova/files/keepalived.conf.jinja
    - user: root
    - group: root
    - mode: '0600'
    - context: {}
    - ini: False
{%- if nova.keepalived_checker is defined %}
    - checker: {{ nova.keepalived_checker | json }}
{%- endif %}
    - imports: [salt://nova/map.jinja, salt://nova/map.py, salt://nova/parameters/]
    - require:
      - sls: nova.haproxy.package

nova-haproxy-keepalived-running:
  nova_unit.running:
    - name: {{ nova.units.keepalived | json }}
    - reload: True
    - reads: [/etc/keepalived/keepalived.conf]
    - timeout: {{ nova.timeouts.service }}
    - require:
      - nova_conf: nova-haproxy-keepalived-conf
      - sls: nova.haproxy.service
{%- endif %}
