"""Kinds of hostile input: values, documents, and files that are none."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

HOSTS = "hosts: [{name: gpu01, gpus: 8}]\n"
LEVELS = range(1, 31)

DOUBLING = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in LEVELS)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{k{n}: 1, <<: [*a{n - 1}, *a{n - 1}]}}\n" for n in LEVELS)
LONG_TEXT = "a: &a '" + "b=" * 50_000 + "'\nc: [" + "*a, " * 2000 + "*a]\n"
DEEP_ALIASES = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000))
KEYS_DOUBLING = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{? *a{n - 1} : *a{n - 1}}}\n" for n in LEVELS)
INTERPOLATIONS = "a0: x\n" + "".join(f"a{n}: ${{a{n - 1}}}${{a{n - 1}}}\n" for n in LEVELS)
MAPPINGS = "a0: x\n" + "".join(f"a{n}: {{b: '${{a{n - 1}}}', c: '${{a{n - 1}}}'}}\n" for n in LEVELS)
VARIABLES = "".join(f"a{n}: '{{{{ a{n - 1} }}}}{{{{ a{n - 1} }}}}'\n" for n in LEVELS) + "a0: x\n"

VALUES: Mapping[str, str] = {
    "no date": "2024-13-45",
    "no time": "2024-01-01T99:99:99",
    "a tagged date": "!!timestamp 2024-13-45",
    "tagged text": "!!timestamp x",
    "5,000 digits": "9" * 5000,
    "400 digits": "9" * 400,
    "5,000 hexadecimal digits": "0x" + "f" * 5000,
    "5,000 octal digits": "0o" + "7" * 5000,
    "5,000 binary digits": "0b" + "1" * 5000,
    "a long number of base 60": "1" + ":1" * 100_000,
    "a number of base 60": "190:20:30",
    "an octal number": "0777",
    "infinity": ".inf",
    "no number": ".nan",
    "a huge float": "1e400",
    "a huge signed float": "-1.0e+400",
    "a negative number": "-1",
    "a huge number": "1" + "0" * 18,
    "text": "x" * 100_000,
    "tagged int": "!!int x",
    "tagged empty int": "!!int ''",
    "tagged float": "!!float x",
    "tagged bool": "!!bool x",
    "tagged null": "!!null x",
    "binary": "!!binary '*'",
    "good binary": "!!binary AAEC",
    "a set": "!!set {a, b}",
    "an ordered map": "!!omap [a: 1]",
    "no ordered map": "!!omap [1, 2]",
    "pairs": "!!pairs [a: 1, a: 2]",
    "Python": "!!python/object/apply:os.system ['touch /tmp/fsd-hostile']",
    "a Python name": "!!python/name:os.system",
    "an unknown tag": "!x y",
    "vault": "!vault x",
    "unsafe": "!unsafe '{{ 1 }}'",
    "a sequence with a tag of text": "!!str [a]",
    "a mapping with a tag of a list": "!!seq {a: 1}",
    "a mapping as key": "{{a: 1}: 2}",
    "a list as key": "{[a]: 2}",
    "a question": "{? [a, b] : c}",
    "a date as key": "{2024-01-01: 1}",
    "null as key": "{null: 1}",
    "true as key": "{true: 1}",
    "nan as key": "{.nan: 1, .nan: 2}",
    "a number as key": "{1: 1, '1': 2}",
    "recursion": "&a [*a]",
    "recursion in a mapping": "&a {b: *a}",
    "recursion in a key": "&a {? *a : b}",
    "an unknown alias": "*nosuch",
    "an anchor twice": "[&a 1, &a 2, *a]",
    "deep lists": "[" * 5000,
    "deep closed lists": "[" * 5000 + "]" * 5000,
    "50 deep": "[" * 50 + "]" * 50,
    "deep mappings": "{a: " * 5000,
    "deep question marks": "? " * 5000,
    "deep dashes": "- " * 5000,
    "surrogate": '"\\ud800"',
    "a pair of surrogates": '"\\ud83d\\ude00"',
    "NUL": '"\\0"',
    "control characters": '"\\e[2J\\a"',
    "a line end": '"a\\nb"',
    "merge of a word": "{<<: x}",
    "merge of a list": "{<<: [1, 2]}",
    "an interpolation": "${a.b}",
    "a broken interpolation": "${",
    "deep interpolations": "${" * 3000 + "}" * 3000,
    "many interpolations": "${oc.env:HOME,x}" * 5000,
    "a resolver": "${oc.decode:'[[[1]]]'}",
    "an unknown resolver": "${now:%Y}",
    "a resolver of files": "${oc.create:${oc.env:HOME}}",
    "Jinja range": "'{{ range(10 ** 9) | list }}'",
    "Jinja power": "'{{ 10 ** 10 ** 10 }}'",
    "Jinja text": "'{{ \"x\" * 10 ** 10 }}'",
    "Jinja self": "'{{ self }}'",
    "Jinja hostvars": "'{{ hostvars }}'",
    "Jinja groups": "'{{ groups }}'",
    "Jinja undefined in a list": "'{{ [self] }}'",
    "Jinja namespace": "'{{ [namespace(), cycler(1), range, dict] }}'",
    "long interpolations": "${a} " * 160_000,
    "Jinja recursion": "'{{ ansible_user }}'",
    "a host range": "'gpu[1:1000000000]'",
    "a host range of 20 digits": "'gpu[1:99999999999999999999]'",
    "many host ranges": "'gpu[1:999][1:999][1:999]'",
    "a long port": "'gpu01:" + "9" * 5000 + "'",
    "a regular expression": "'~(a+)+$'",
    "a path of NUL": "'/\\0'",
    "a long path": "'/" + "x" * 5000 + "'",
    "a device": "/dev/zero",
    "a folder": "/",
}
"""What may stand behind `KEY: `; most of it is no value of that key."""

DOCUMENTS: Mapping[str, str | bytes] = {
    "nothing": "",
    "a comment": "# x\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "a word": "hello\n",
    "a number": "17\n",
    "a list": "- a\n- b\n",
    "a list of lists": "- [a]\n",
    "JSON": '{"a": {"b": [1, 2.5, null, true]}}',
    "JSON with NaN": '{"a": NaN}',
    "JSON of 5,000 digits": '{"a": ' + "9" * 5000 + "}",
    "deep JSON": '{"a":' * 3000 + "1" + "}" * 3000,
    "JSON with many keys": json.dumps({str(number): number for number in range(60_000)}),
    "JSON with one key often": "{" + ",".join(['"a": 1'] * 60_000) + "}",
    "doubling aliases": DOUBLING,
    "doubling aliases as keys": KEYS_DOUBLING,
    "doubling merges": MERGES,
    "deep aliases": DEEP_ALIASES,
    "a long text behind aliases": LONG_TEXT,
    "a repeat of nothing": "all: {hosts: {gpu01: {ansible_user: \"{{ 'a' | regex_search('(?:^){4000000000}') }}\"}}}\n",
    "a slow codec": "all: {hosts: {gpu01: {ansible_user: \"{{ '" + "一" * 20_000 + "'.encode('punycode') }}\"}}}\n",
    "many unknown keys": "model_args: {m: {model: a/b}}\ndeploy:\n" + "".join(f"  prot{n}: 1\n" for n in range(9000)),
    "many hosts that are none": "hosts: ['gpu[1:50000]']\ngroups: {g: ['gpux[1:100]']}\n",
    "many groups and hosts": "h[1:9000]\n" + "".join(f"[g{n}]\n" for n in range(9000)),
    "a group often": "defaults: [{g: [" + "x, " * 5000 + "x]}]\n",
    "doubling interpolations": INTERPOLATIONS,
    "doubling mappings": MAPPINGS,
    "doubling variables": VARIABLES,
    "a chain of interpolations": "".join(f"a{n}: ${{a{n + 1}}}\n" for n in range(2000)) + "a2000: x\n",
    "many keys": "".join(f"k{number}: 1\n" for number in range(20_000)),
    "many documents": "---\n" * 50_000,
    "many anchors": "".join(f"k{number}: &a{number} 1\n" for number in range(20_000)),
    "many brackets": "[],\n" * 50_000,
    "a tab": "a:\n\t- b\n",
    "spaces": "a" + " " * 100_000 + "b slots=8\n",
    "dashes": "-" * 100_000,
    "colons": ":" * 100_000,
    "quotes": "'" * 100_001,
    "brackets": "[" * 100_000,
    "words": "a=b " * 20_000,
    "sections": "[a]\n" * 20_000,
    "children": "".join(f"[g{n}:children]\ng{n + 1}\n" for n in range(2000)) + "[g2000]\nh\n",
    "children of the last": "[g0]\nh\n" + "".join(f"[g{n + 1}:children]\ng{n}\n" for n in range(20_000)),
    "children with hosts": "[g0]\nh\n" + "".join(f"[g{n + 1}]\nh{n}\n[g{n + 1}:children]\ng{n}\n" for n in range(9000)),
    "a diamond of children": "[g0]\nh\n"
    + "".join(f"[a{n}:children]\ng{n}\n[b{n}:children]\ng{n}\n[g{n + 1}:children]\na{n}\nb{n}\n" for n in range(300)),
    "a wide diamond of children": "[g0]\nh\n"
    + "".join(f"[a{n}:children]\ng{n}\n[b{n}:children]\ng{n}\n[g{n + 1}:children]\na{n}\nb{n}\n" for n in range(60)),
    "many groups of many hosts": "".join(f"[g{n}]\nh[1:9000]\n[a{n}:children]\ng{n}\n" for n in range(20)),
    "many variables of many hosts": "h[00001:20000]\n[all:vars]\n" + "".join(f"v{n}=1\n" for n in range(20_000)),
    "a circle of children": "[a:children]\nb\n[b:children]\na\n",
    "literals": "a b={[]:1} c=0x" + "f" * 2000 + " d=" + "9" * 5000 + " e=1e999 f=b'\\xff' g=(1,) h={1} i=1j\n",
    "a literal of brackets": "a b=" + "[" * 5000 + "\n",
    "a literal of signs": "a b=" + "-" * 5000 + "1\n",
    "a literal of a sum": "a b=" + "1+" * 5000 + "1\n",
    "slots": "gpu01 slots=" + "9" * 5000 + "\n",
    "many hosts": "gpu[1:99999] slots=8\n" * 50,
    "a plugin": "plugin: aws_ec2\n",
    "a program": "#!/bin/sh\ntouch /tmp/fsd-hostile\n",
    "a vault": "$ANSIBLE_VAULT;1.1;AES256\n61\n",
    "groups of groups": "all: {children: {a: {children: {b: {children: {a: {}}}}}}}\n",
    "hydra": "defaults: [_self_, {serve: x}]\nhydra: {run: {dir: '${now:%Y}'}}\n",
    "defaults that are no list": "defaults: {a: {b: c}}\n",
    "defaults of itself": "defaults: [x]\n",
    "defaults of other folders": "defaults: [{../../../etc: passwd}]\n",
    "UTF-16": HOSTS.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + HOSTS.encode(),
    "Latin-1": "a: é\n".encode("latin-1"),
    "bytes": bytes(range(256)),
    "NUL bytes": b"a: b\0c\n",
    "surrogates": b"a: \xed\xa0\x80\n",
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----\n"
    + "b3BlbnNzaC1rZXk+\n" * 10
    + "-----END OPENSSH PRIVATE KEY-----\n",
    "passwords": "".join(f"user{n}:$6$salt$verysecrethash{n}/:19000:0:99999:7:::\n" for n in range(20)),
    "line ends": "a: 1\r\nb: 2\rc: 3\u2028d: 4\x85",
}


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(path.parent)  # its path may be longer than a socket's address
        listener.bind(path.name)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


FILES: Mapping[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a socket": _socket,
    "a folder": lambda path: path.mkdir(),
    "a file of a TiB": _sparse,
    "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "/dev/null": lambda path: path.symlink_to("/dev/null"),
    "/dev/tty": lambda path: path.symlink_to("/dev/tty"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to("nosuch"),
    "a file of /proc": lambda path: path.symlink_to("/proc/self/mem"),
    "nothing": lambda _path: None,
}
