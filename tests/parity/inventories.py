"""Inventories on which we have to agree with Ansible: for each case the files by name, the inventory first."""

from __future__ import annotations

from collections.abc import Mapping

CASES: Mapping[str, Mapping[str, str]] = {
    "nested groups with vars at each level": {
        "hosts.yaml": """
all:
  vars: {who: all, only_all: 1}
  hosts:
    alone:
  children:
    site:
      vars: {who: site, only_site: [1, 2]}
      children:
        rack:
          vars: {who: rack}
          hosts:
            r1: {who: host}
            r2:
        other:
          hosts: {o1: }
"""
    },
    "ranges of every kind": {
        "hosts.yaml": """
gpu:
  hosts:
    gpu[01:12]: {gpus: 8}
    rack[a:c]-node[1:9:4]:
    "n[08:10].example.com:2222":
    w[:2]:
    Z[X:Z]:
"""
    },
    "port forms": {
        "hosts.yaml": """
all:
  hosts:
    plain:22:
    10.0.0.1:2222:
    "[2001:db8::1]:2200":
    "2001:db8::2":
    under_score:23:
  children:
    again:
      hosts:
        plain:99:
"""
    },
    "same depth merges by name, priority turns it": {
        "hosts.yaml": """
all:
  children:
    alpha: {vars: {x: alpha, y: alpha, ansible_group_priority: 10}, hosts: {h: }}
    beta: {vars: {x: beta, z: beta}, hosts: {h: , i: }}
    gamma: {vars: {y: gamma, z: gamma}, hosts: {i: , h: }}
"""
    },
    "a group that is deeper by one of two ways": {
        "hosts.yaml": """
a: {vars: {v: a}, children: {b: , d: }}
b: {vars: {v: b}, children: {c: }}
c: {vars: {v: c}, children: {d: }}
d: {vars: {w: d}, hosts: {h: }}
e: {vars: {w: e, v: e}, hosts: {h: }}
"""
    },
    "mappings are replaced and not merged": {
        "hosts.yaml": """
all:
  vars: {env: {A: 1, B: 2}}
  children:
    g:
      vars: {env: {B: 3}}
      hosts:
        h1:
        h2: {env: {C: 4}}
  hosts:
    h3:
"""
    },
    "group_vars and host_vars beside the file": {
        "hosts.yaml": """
all:
  vars: {who: inline all, p: inline all}
  children:
    gpu:
      vars: {who: inline gpu, q: inline gpu}
      hosts:
        gpu1: {who: inline host, r: inline host}
        gpu2:
    cpu:
      hosts: {cpu1: }
""",
        "group_vars/all.yml": "who: file all\nfrom_all: true\n",
        "group_vars/all.yaml": "never: read\n",
        "group_vars/gpu/10_first.yml": "q: first\ns: first\n",
        "group_vars/gpu/20_second.yaml": "s: second\n",
        "group_vars/gpu/deep/x.json": '{"deep": [1, {"k": null}]}',
        "group_vars/gpu/.hidden.yml": "hidden: 1\n",
        "group_vars/gpu/backup.yml~": "backup: 1\n",
        "group_vars/gpu/notes.txt": "not: read\n",
        "group_vars/cpu.json": '{"who": "json",\t"n": 1}',
        "host_vars/gpu1": "r: file host\nwho: file host\n",
        "host_vars/gpu2.yml": "",
        "host_vars/nobody.yml": "x: 1\n",
    },
    "values of every type": {
        "hosts.yaml": """
all:
  hosts:
    h:
      hex: 0x10
      octal: 010
      float: 1.5e+3
      yes_no: [yes, off, True]
      day: 2026-11-02
      time: 2026-11-02 10:11:12
      sexagesimal: 12:30:45
      nothing:
      text: "8"
      template: "{{ inventory_hostname }}-x"
      unsafe: !unsafe "{{ not_a_template }}"
      unsafe_inside: !unsafe [1, {a: "{{ b }}"}]
      block: |
        one
        two
      ünïcode: ☃
  vars:
    merged: {<<: &base {a: 1, b: 2}, b: 3}
    secret: !vault |
      $ANSIBLE_VAULT;1.1;AES256
      3131
"""
    },
    "top level groups, empty ones, and one word for a section": {
        "hosts.yaml": """
ungrouped:
  hosts: {loner: , both: }
empty:
nobody: {hosts: , vars: {}}
one:
  hosts: both
parent:
  children: one
all:
  hosts:
    both:
    direct:
"""
    },
    "ini: sections, children before their section, vars of groups": {
        "hosts.ini": """
# a comment
; another
lonely ansible_host=10.0.0.9
named:2222

[all:vars]
who=all
[site:children]
gpu
cpu

[gpu]
gpu[1:3] gpus=8 tags="['a', 'b']"   # behind a host
gpu2 more='two words'

[cpu]   # a section
cpu1 flag=True other=true who='"quoted"'

[gpu:vars]
who = gpu, and more
number = 0x10
list=[1, 2, (3, 4)]
mapping={"A": "1", 'n': None}
empty=
spaced =   inner  spaces
hash=value # kept
number_and_hash=8 # dropped
leading_zero=007
set={1}
complex=1j
ellipsis=...
bytes=b'raw'

[site:vars]
ansible_group_priority=5
who=site
"""
    },
    "ini: a host in several groups, priorities, ungrouped": {
        "inventory": """
h1
[ungrouped]
h2
[b]
h1 v=host
h3
[a]
h3
[a:vars]
x=a
ansible_group_priority=3
[b:vars]
x=b
[c:children]
a
b
[c:vars]
x=c
y=c
""",
        "group_vars/c.yml": "y: file\n",
        "host_vars/h3/main.yml": "z: file\n",
    },
}
