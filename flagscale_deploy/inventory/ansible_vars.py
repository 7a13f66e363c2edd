"""Read our host keys from the variables of an Ansible host.

A key has three names there: Ansible's own (`ansible_user`), ours with a prefix (`fsd_gpus`), and, for some keys, the
bare word (`gpus`), which other roles may use for something of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flagscale_deploy.errors import Fault
from flagscale_deploy.inventory.document import Confidential, Section
from flagscale_deploy.inventory.keys import HOST_KEYS, confidential, fits, shown, unknown_key
from flagscale_deploy.inventory.references import ReferenceProblem, References
from flagscale_deploy.inventory.ssh_options import read_ssh_options
from flagscale_deploy.inventory.tree import Located, Variables

PREFIX = "fsd_"
NAMES = {
    "ansible_connection": "connection",
    "ansible_ssh_host": "address",
    "ansible_host": "address",
    "ansible_ssh_port": "port",
    "ansible_port": "port",
    "ansible_ssh_user": "user",
    "ansible_user": "user",
    "ansible_ssh_private_key_file": "identity_file",
    "ansible_private_key_file": "identity_file",
    "ansible_python_interpreter": "python",
    "ansible_ssh_host_key_checking": "host_key_checking",
    "ansible_host_key_checking": "host_key_checking",
}
"""Ansible's names of our keys; where two name the same key the first counts (the options of ansible.builtin.ssh)."""

APPLICATIONS = ("address", "port", "user", "connection", "python")
"""Words that are never ours without the prefix: playbooks use them for applications, and SSH's have Ansible's names."""
COMMON = ("env", "type", "interface", "container")
"""Bare words that roles use as well: nothing is said, but with `-v`, where their values are not of our type."""
BARE = tuple(key for key in HOST_KEYS if key not in APPLICATIONS)
FOR_SSH = ("address", "port", "user", "identity_file", "proxy_jump", "host_key_checking", "known_hosts", "ssh_options")
"""Keys that a host does not need that is reached without SSH."""

_ARGUMENTS_BEFORE, _ARGUMENTS_AFTER = ("ansible_ssh_args",), ("ansible_ssh_common_args", "ansible_ssh_extra_args")
"""Ansible's ssh command has the first before the options of variables, the others behind; ssh keeps the first."""
_PASSWORDS = ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password")

_CONNECTIONS = {"ssh": "ssh", "smart": "ssh", "paramiko": "ssh", "paramiko_ssh": "ssh", "local": "local"}
_DISCOVERY = ("auto", "auto_silent", "auto_legacy", "auto_legacy_silent")


@dataclass
class HostVariables:
    """What the variables of one host say of our keys, each with its place.

    `bare` are the keys under their own names, which may be another application's; `faults` what is wrong, by key.
    """

    keys: Variables = field(default_factory=dict)
    bare: Variables = field(default_factory=dict)
    unresolved: set[str] = field(default_factory=set)
    """Bare words whose templates lead nowhere."""
    faults: dict[str, Fault] = field(default_factory=dict)

    @property
    def foreign(self) -> set[str]:
        """Return the bare words that do not mean our keys: their values are not of our types."""
        return self.unresolved | {key for key, setting in self.bare.items() if not _is_ours(key, setting.value)}

    def all_keys(self, foreign: set[str], weakest: Variables) -> Variables:
        """Return the keys; bare words count where nothing else sets a key, unless they are `foreign`."""
        bare = {key: setting for key, setting in self.bare.items() if key not in foreign}
        return {**weakest, **_merged(self.keys, bare)}

    def all_faults(self, keys: Variables) -> list[Fault]:
        """Return what is wrong with keys that the host needs."""
        local = "connection" in keys and keys["connection"].value == "local"
        return [fault for key, fault in self.faults.items() if not (local and key in FOR_SSH)]


def _is_ours(key: str, value: object) -> bool:
    return value in ("gpu", "cpu") if key == "type" else fits(key, value)


def read_variables(variables: Variables, references: References, encrypted: list[str]) -> HostVariables:
    """Return what the variables set. `encrypted` are files that were not read, named where a reference leads nowhere.

    The prefix wins over Ansible's names, and these over bare words. Only what counts is resolved.
    """
    reader = _Reader(variables, references, encrypted)
    reader.read_prefixed()
    reader.read_arguments(_ARGUMENTS_BEFORE)
    reader.read_names()
    reader.read_arguments(_ARGUMENTS_AFTER)
    reader.refuse_passwords()
    reader.read_bare()
    return reader.host


def _merged(first: Variables, later: Variables) -> Variables:
    """Return the keys of both; of one that both have the first counts, but options of ssh are joined, as ssh reads."""
    merged = later | first
    name = "ssh_options"
    if name in first and name in later:
        merged[name] = Located(f"{first[name].value} {later[name].value}", first[name].where)
    return merged


class _Reader:
    def __init__(self, variables: Variables, references: References, encrypted: list[str]) -> None:
        self.variables = variables
        self.references = references
        self.encrypted = encrypted
        self.host = HostVariables()

    def read_prefixed(self) -> None:
        """Read `fsd_gpus` and the like, of which each has to be a key."""
        for name in self.variables:
            key = name.removeprefix(PREFIX)
            if key == name:
                continue
            if key in HOST_KEYS:
                self._set(key, name)
            else:
                names = [f"{PREFIX}{own}" for own in HOST_KEYS]
                self.host.faults[name] = unknown_key(name, names, self.variables[name].where)

    def read_names(self) -> None:
        """Read Ansible's variables."""
        for name, key in NAMES.items():
            self._set(key, name)

    def read_arguments(self, names: tuple[str, ...]) -> None:
        """Read variables with arguments of ssh."""
        for name in names:
            if (setting := self._resolved("ssh_options", name)) is not None:
                if isinstance(setting.value, Confidential):
                    self.host.faults["ssh_options"] = confidential(setting.where)
                    continue
                try:
                    options = read_ssh_options(str(setting.value))
                except ValueError as error:
                    self.host.faults["ssh_options"] = Fault(setting.where, str(error))
                    continue
                keys = {key: Located(value, setting.where) for key, value in options.items()}
                self.host.keys = _merged(self.host.keys, keys)

    def refuse_passwords(self) -> None:
        """Add a fault for a password: nothing here types one."""
        for name in _PASSWORDS:
            if name in self.variables and self.variables[name].value not in (None, ""):
                remedy = "give the host your public key (ssh-copy-id), and take the password out"
                problem = "found a password, expected none: logins are by key alone"
                self.host.faults["ssh_options"] = Fault(self.variables[name].where, problem, remedy)

    def read_bare(self) -> None:
        """Read our keys under their own names."""
        for key in BARE:
            if key in self.host.keys or key in self.host.faults:
                continue
            if (setting := self._resolved(key, key)) is not None:
                self.host.bare[key] = setting
            elif key in self.host.faults and key in COMMON:
                self.host.unresolved.add(key)
                del self.host.faults[key]

    def _set(self, key: str, name: str) -> None:
        if key in self.host.keys or key in self.host.faults:
            return
        setting = self._resolved(key, name)
        if setting is None or (key == "python" and setting.value in _DISCOVERY):
            return
        value = setting.value
        if key == "connection":
            value = _CONNECTIONS.get(str(value).rpartition(".")[2])
            if value is None:
                expected = f"expected one of {', '.join(_CONNECTIONS)}"
                problem = f"found the connection {shown(setting.value)}, {expected}"
                self.host.faults[key] = Fault(setting.where, problem)
                return
        elif key == "host_key_checking" and name in NAMES:
            value = _boolean(value)
        self.host.keys[key] = Located(value, setting.where)

    def _resolved(self, key: str, name: str) -> Located | None:
        """Return a variable with its templates resolved; None where it is not set, and with a fault where it can't."""
        if name not in self.variables or self.variables[name].value is None:
            return None
        value, where = self.variables[name].value, self.variables[name].where
        try:
            if isinstance(value, Section) and key == "env":
                section = Section(((item, self._read(text)) for item, text in value.items()), value.line)
                section.written = {item: text for item, text in value.written.items() if section[item] is value[item]}
                return Located(section, where)
            return Located(self._read(value), where)
        except ReferenceProblem as problem:
            unread = f" (not read, encrypted: {', '.join(self.encrypted)})" if self.encrypted else ""
            self.host.faults[key] = Fault(where, f"found {problem}{unread}", problem.remedy)
            return None

    def _read(self, value: object) -> object:
        """Return a value resolved; as `Confidential` where it was made from a secret of the environment."""
        environ = self.references.environ
        before = environ.secrets_taken
        resolved = self.references.read(value)
        if environ.secrets_taken == before:
            return resolved
        if isinstance(resolved, Mapping):
            return {key: Confidential(str(item)) for key, item in resolved.items()}
        return Confidential(str(resolved))


def _boolean(value: object) -> object:
    words = {"yes": True, "on": True, "1": True, "true": True, "no": False, "off": False, "0": False, "false": False}
    return words.get(str(value).lower(), value)
