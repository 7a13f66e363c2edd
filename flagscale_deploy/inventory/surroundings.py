"""What counts for an inventory beside its text: variable files, `ansible.cfg`, the operator's environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from flagscale_deploy.inventory.ansible_cfg import AnsibleConfig, read_ansible_config
from flagscale_deploy.inventory.variable_files import VariableFiles
from flagscale_deploy.secrets import by_look, is_secret_name
from flagscale_deploy.support.learn_secrets import is_file, learn


class Environ:
    """The operator's environment, for `lookup('env', NAME)`. What is secret by its name or its look is learned."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.secrets_taken = 0
        """How often a secret was looked up: a value in whose making it rises is made from a secret."""

    def look_up(self, name: str, default: object) -> object:
        """Return a variable's value."""
        value = self._variables.get(name)
        if value is None:
            return default
        if (is_secret_name(name) or by_look(value) != value) and not is_file(value):  # as in SSH_KEY=~/.ssh/k
            self.secrets_taken += 1
            learn(value)
        return value


class Surroundings:
    """What an Ansible inventory needs beside its text; without `files` nothing lies around it, and none is read."""

    def __init__(self, environ: Mapping[str, str], files: VariableFiles | None = None) -> None:
        self._variables = environ
        self._is_text = files is None
        self.environ = Environ(environ)
        self.files = files or VariableFiles(None)
        self.working_directory = "." if self._is_text else os.path.abspath(".")

    @cached_property
    def config(self) -> AnsibleConfig:
        """Return Ansible's settings, read when they are asked for: other forms have none. Raises InputError."""
        return AnsibleConfig() if self._is_text else read_ansible_config(self.files.directory, self._variables)

    @property
    def directory(self) -> Path | None:
        """Return the absolute directory of the inventory's file."""
        return None if self.files.directory is None else Path(self.working_directory) / self.files.directory
