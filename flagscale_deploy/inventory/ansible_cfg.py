"""Ansible's own settings, `ansible.cfg`: those that decide how a host is reached, and the default inventory."""

from __future__ import annotations

import configparser
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.tree import Located, Variables
from flagscale_deploy.support.input_files import read_text
from flagscale_deploy.support.planted import part_of_another_user

NAME = "ansible.cfg"
_KEYS = {
    ("defaults", "remote_user"): "user",
    ("defaults", "remote_port"): "port",
    ("defaults", "private_key_file"): "identity_file",
    ("defaults", "host_key_checking"): "host_key_checking",
    ("ssh_connection", "host_key_checking"): "host_key_checking",
}
"""Settings and our keys; later ones win."""
_ARGUMENTS = ("ssh_args", "ssh_common_args", "ssh_extra_args")
_BOOLEANS = {
    **dict.fromkeys(("yes", "true", "on", "1", "y", "t"), True),
    **dict.fromkeys(("no", "false", "off", "0", "n", "f"), False),
}


@dataclass(frozen=True)
class AnsibleConfig:
    """What counts of an `ansible.cfg`; nothing where there is none."""

    keys: Variables = field(default_factory=dict)
    """Our keys, for hosts of which nothing else sets them."""
    arguments: Variables = field(default_factory=dict)
    """`ansible_ssh_args` and the like, for hosts without these variables."""
    inventory: str | None = None
    notes: tuple[str, ...] = ()
    """What has to be said of a file that is not read."""
    details: tuple[str, ...] = ()


def read_ansible_config(beside: Path | None, environ: Mapping[str, str]) -> AnsibleConfig:
    """Return the settings of the file in ANSIBLE_CONFIG, else in the working directory, else beside the inventory.

    As Ansible does, one in a directory that everybody may write to is left alone; so is another user's in the working
    directory, unless the inventory is there, too. Raises InputError where a file cannot be read.
    """
    named = environ.get("ANSIBLE_CONFIG")
    if named:
        path = Path(os.path.expanduser(named))
        return _read(path / NAME if os.path.isdir(path) else path)
    notes: tuple[str, ...] = ()
    for folder in dict.fromkeys((Path(), beside or Path())):
        if not os.path.isfile(folder / NAME):
            continue
        if os.stat(folder).st_mode & stat.S_IWOTH:
            notes += (f"{folder / NAME} is not read: everybody may write to its directory",)
        elif part_of_another_user(folder, folder / NAME, named=folder == beside):
            notes += (f"{folder / NAME} is not read: it belongs to another user",)
        else:
            config = _read(folder / NAME)
            return replace(config, notes=(*notes, *config.notes))
    return AnsibleConfig(notes=notes)


def _read(path: Path) -> AnsibleConfig:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",), strict=False)
    try:
        parser.read_string(read_text(path), str(path))
    except configparser.Error as error:
        problem = f"is not read: {str(error).splitlines()[0]}"
        raise InputError.at(str(path), problem, "correct it, or move it away") from error
    keys: Variables = {}
    for (section, option), key in _KEYS.items():
        text = parser.get(section, option, fallback="").strip()
        if text:
            keys[key] = Located(_value(key, text, path), f"{path}: [{section}] {option}")
    texts = {option: parser.get("ssh_connection", option, fallback="").strip() for option in _ARGUMENTS}
    arguments = {
        f"ansible_{option}": Located(text, f"{path}: [ssh_connection] {option}")
        for option, text in texts.items() if text
    }  # fmt: skip
    inventory = parser.get("defaults", "inventory", fallback="").strip()
    names = [setting.where.rpartition(" ")[2] for setting in (*keys.values(), *arguments.values())]
    details = (f"{path}: {', '.join(names)} apply where the inventory sets nothing else",) if names else ()
    return AnsibleConfig(keys, arguments, _inventory(inventory, path), details=details)


def _value(key: str, text: str, path: Path) -> object:
    if key == "host_key_checking":
        return _BOOLEANS.get(text.lower(), text)
    return _beside(text, path) if key == "identity_file" else text


def _inventory(text: str, path: Path) -> str | None:
    """Return the default inventory: a path beside the settings, or names with a comma."""
    if not text:
        return None
    beside = _beside(text, path)
    return text if "," in text and not os.path.exists(beside) else beside


def _beside(text: str, path: Path) -> str:
    """Return a path of the settings: a relative one starts at their file."""
    return text if text.startswith(("/", "~", "$", "{")) else str(path.parent / text)
