"""What counts for an inventory beside its text: variable files, `ansible.cfg`, the operator's environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from flagscale_deploy.inventory.ansible_cfg import AnsibleConfig
from flagscale_deploy.inventory.variable_files import VariableFiles
from flagscale_deploy.secrets import by_look, is_secret_name
from flagscale_deploy.support.learn_secrets import learn


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
        if (is_secret_name(name) or by_look(value) != value) and not os.path.exists(os.path.expanduser(value)):
            self.secrets_taken += 1  # a path such as SSH_KEY=~/.ssh/k is no secret
            learn(value)
        return value


@dataclass(frozen=True)
class Surroundings:
    """Nothing of all that by default."""

    files: VariableFiles = field(default_factory=lambda: VariableFiles(None))
    config: AnsibleConfig = field(default_factory=AnsibleConfig)
    environ: Environ = field(default_factory=lambda: Environ({}))
    working_directory: str = "."
