# What all three sites have.
nova:
  haproxy:
    backup: false
  timeouts:
    discovery: 1200
  config:
    DEFAULT:
      instance_usage_audit: true
    filter_scheduler:
      ram_weight_multiplier: 2.0
