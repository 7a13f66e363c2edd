"""The variables of an Ansible host become our host keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flagscale_deploy.errors import Fault
from flagscale_deploy.inventory.keys import HOST_KEYS
from flagscale_deploy.inventory.references import ReferenceProblem, References
from flagscale_deploy.inventory.ssh_options import read_ssh_options
from flagscale_deploy.inventory.tree import Located, Variables

NAMES = {
    "ansible_ssh_host": "address",
    "ansible_host": "address",
    "ansible_ssh_port": "port",
    "ansible_port": "port",
    "ansible_ssh_user": "user",
    "ansible_user": "user",
    "ansible_ssh_private_key_file": "identity_file",
    "ansible_private_key_file": "identity_file",
    "ansible_connection": "connection",
    "ansible_python_interpreter": "python",
    "ansible_ssh_host_key_checking": "host_key_checking",
    "ansible_host_key_checking": "host_key_checking",
}
"""Ansible's names of our keys; where two name the same key the first counts (the options of ansible.builtin.ssh)."""

_ARGUMENTS_BEFORE, _ARGUMENTS_AFTER = ("ansible_ssh_args",), ("ansible_ssh_common_args", "ansible_ssh_extra_args")
"""Ansible's ssh command has the first before the options of variables, the others behind; ssh keeps the first."""

_CONNECTIONS = {"ssh": "ssh", "smart": "ssh", "paramiko": "ssh", "paramiko_ssh": "ssh", "local": "local"}
_DISCOVERY = ("auto", "auto_silent", "auto_legacy", "auto_legacy_silent")


def read_keys(variables: Variables, references: References, encrypted: list[str]) -> tuple[Variables, list[Fault]]:
    """Our keys with the places of the variables that set them, and what is wrong with those variables.

    What Ansible would connect with wins; a key of ours counts where Ansible's variables are silent. `encrypted` are
    files that were not read, named where a reference leads nowhere.
    """
    faults: list[Fault] = []
    known: Variables = {}
    for name in (*_ARGUMENTS_BEFORE, *NAMES, *_ARGUMENTS_AFTER, *HOST_KEYS):
        if name in variables and variables[name].value is not None:
            try:
                known[name] = Located(references.resolve(variables[name].value), variables[name].where)
            except ReferenceProblem as problem:
                unread = f" (not read, encrypted: {', '.join(encrypted)})" if encrypted else ""
                faults.append(Fault(variables[name].where, f"found {problem}{unread}", problem.remedy))
    keys: Variables = {}
    _take_arguments(keys, known, _ARGUMENTS_BEFORE, faults)
    for name, key in NAMES.items():
        if name in known and key not in keys:
            _take(keys, key, known[name], faults)
    _take_arguments(keys, known, _ARGUMENTS_AFTER, faults)
    for key in HOST_KEYS:
        if key in known:
            keys.setdefault(key, known[key])
    return keys, faults


def _take(keys: Variables, key: str, given: Located, faults: list[Fault]) -> None:
    value = given.value
    if key == "connection":
        value = _CONNECTIONS.get(str(value).rpartition(".")[2])
        if value is None:
            expected = f"expected one of {', '.join(_CONNECTIONS)}"
            faults.append(Fault(given.where, f"found the connection {given.value!r}, {expected}"))
            return
    elif key == "host_key_checking":
        value = _boolean(value)
    elif key == "python" and value in _DISCOVERY:
        return
    keys[key] = Located(value, given.where)


def _boolean(value: Any) -> Any:
    words = {"yes": True, "on": True, "1": True, "true": True, "no": False, "off": False, "0": False, "false": False}
    return words.get(str(value).lower(), value)


def _take_arguments(keys: Variables, known: Mapping[str, Located], names: tuple[str, ...], faults: list[Fault]) -> None:
    for name in names:
        if name not in known:
            continue
        where = known[name].where
        try:
            found = read_ssh_options(str(known[name].value))
        except ValueError as error:
            faults.append(Fault(where, str(error)))
            continue
        for key, value in found.items():
            keys.setdefault(key, Located(value, where))
