# What a person would look at after the deployment, as states that fail with one sentence each.
{%- from "nova/map.jinja" import nova with context %}
include:
  - nova.controller
