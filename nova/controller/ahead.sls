# Keystone hashes passwords while Salt renders what comes after this: a third of what a run with
# nothing to do takes. After nova.sync: a bare minion that looked for the module before would not
# look again. salt-ssh renders elsewhere.
{%- from "nova/map.jinja" import nova with context %}
{%- if salt.pack is mapping and 'nova_identity.ask_ahead' in salt %}
{%- do salt['nova_identity.ask_ahead'](nova.ahead) %}
{%- endif %}
{}
