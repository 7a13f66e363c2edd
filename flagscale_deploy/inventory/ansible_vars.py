"""Read our host keys from the variables of an Ansible host."""

from __future__ import annotations

from collections.abc import Mapping

from flagscale_deploy.errors import Fault
from flagscale_deploy.inventory.keys import HOST_KEYS
from flagscale_deploy.inventory.references import ReferenceProblem, References
from flagscale_deploy.inventory.ssh_options import read_ssh_options
from flagscale_deploy.inventory.tree import Located, Variables
from flagscale_deploy.support.quote import quoted

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
    """Return our keys with the places of the variables that set them, and what is wrong with those variables.

    What Ansible would connect with wins; a key of ours counts where Ansible's variables do not set it. `encrypted` are
    files that were not read, named where a reference leads nowhere.
    """
    resolved, faults = _resolve(variables, references, encrypted)
    keys: Variables = {}
    for read, wrong in (
        _read_arguments(resolved, _ARGUMENTS_BEFORE),
        _read_names(resolved),
        _read_arguments(resolved, _ARGUMENTS_AFTER),
        ({key: resolved[key] for key in HOST_KEYS if key in resolved}, []),
    ):
        keys = _merged(keys, read)
        faults += wrong
    return keys, faults


def _merged(first: Variables, later: Variables) -> Variables:
    """Return the keys of both; of one that both have the first counts, but options of ssh are joined, as ssh reads."""
    merged = later | first
    name = "ssh_options"
    if name in first and name in later:
        merged[name] = Located(f"{first[name].value} {later[name].value}", first[name].where)
    return merged


def _resolve(variables: Variables, references: References, encrypted: list[str]) -> tuple[Variables, list[Fault]]:
    resolved: Variables = {}
    faults: list[Fault] = []
    for name in (*_ARGUMENTS_BEFORE, *NAMES, *_ARGUMENTS_AFTER, *HOST_KEYS):
        if name in variables and variables[name].value is not None:
            try:
                resolved[name] = Located(references.read(variables[name].value), variables[name].where)
            except ReferenceProblem as problem:
                unread = f" (not read, encrypted: {', '.join(encrypted)})" if encrypted else ""
                faults.append(Fault(variables[name].where, f"found {problem}{unread}", problem.remedy))
    return resolved, faults


def _read_names(variables: Variables) -> tuple[Variables, list[Fault]]:
    keys: Variables = {}
    faults: list[Fault] = []
    for name, key in NAMES.items():
        if name not in variables or key in keys:
            continue
        variable = variables[name]
        value = variable.value
        if key == "connection":
            value = _CONNECTIONS.get(str(value).rpartition(".")[2])
            if value is None:
                expected = f"expected one of {', '.join(_CONNECTIONS)}"
                faults.append(Fault(variable.where, f"found the connection {quoted(variable.value)}, {expected}"))
                continue
        elif key == "host_key_checking":
            value = _boolean(value)
        elif key == "python" and value in _DISCOVERY:
            continue
        keys[key] = Located(value, variable.where)
    return keys, faults


def _boolean(value: object) -> object:
    words = {"yes": True, "on": True, "1": True, "true": True, "no": False, "off": False, "0": False, "false": False}
    return words.get(str(value).lower(), value)


def _read_arguments(variables: Mapping[str, Located], names: tuple[str, ...]) -> tuple[Variables, list[Fault]]:
    keys: Variables = {}
    faults: list[Fault] = []
    for name in names:
        if name in variables:
            where = variables[name].where
            try:
                options = read_ssh_options(str(variables[name].value))
            except ValueError as error:
                faults.append(Fault(where, str(error)))
                continue
            keys = _merged(keys, {key: Located(value, where) for key, value in options.items()})
    return keys, faults
