"""What a command is about: files and options become hosts and, where a configuration is given, a specification."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flagscale_deploy.api.hosts import hosts_of
from flagscale_deploy.config.spec import ServeSpec, Timeouts
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.inventory.patterns import limit as limit_to
from flagscale_deploy.secrets import Secret
from flagscale_deploy.transport.fleet import Connect, Fleet, connect


@dataclass(frozen=True)
class Options:
    """Where things are and how to go about them, as every command takes it."""

    inventory: str | None = None
    config: str | None = None
    overrides: tuple[str, ...] = ()
    name: str | None = None
    limit: str | None = None
    forks: int = 64
    connect: Connect = connect


@dataclass(frozen=True)
class Request:
    """Hosts, and what is to be served on them."""

    inventory: Inventory
    spec: ServeSpec | None
    name: str | None
    options: Options

    @property
    def deployment(self) -> str:
        """The deployment's name. Raises InputError where none was given."""
        if self.name is None:
            raise InputError.at("--name", "which deployment?", "give -c/--config, or --name")
        return self.name

    @property
    def serve(self) -> ServeSpec:
        """The specification. Raises InputError where none was given."""
        if self.spec is None:
            raise InputError.at("-c/--config", "what is to be served?", "give a serve YAML with -c/--config")
        return self.spec

    @property
    def timeouts(self) -> Timeouts:
        return self.spec.timeouts if self.spec else Timeouts()

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Every value that nobody may see."""
        hosts = (secret for host in self.inventory.hosts for secret in host.secret_env.values())
        return (*(self.spec.secret_env.values() if self.spec else ()), *hosts)

    def fleet(self) -> Fleet:
        """Connections to all hosts, none of them open yet."""
        return Fleet(
            self.inventory.hosts,
            forks=self.options.forks,
            connect_timeout=self.timeouts.connect,
            connect=self.options.connect,
        )


def _hosts_again(options: Options, spec: ServeSpec | None) -> tuple[str, ...]:
    """The options that name the same hosts to another command: the inventory, and the configuration where it names
    hosts, or says how to reach them."""
    words = ("-i", options.inventory) if options.inventory is not None else ()
    if spec is None or options.config is None or (words and spec.ssh_port is None and spec.docker is None):
        return words
    return (*words, "-c", options.config, *(each for each in options.overrides if "runner" in each.partition("=")[0]))


def load_request(options: Options, environ: Mapping[str, str] | None = None) -> Request:
    """Read the files that options name. Raises InputError with the faults of all of them; contacts no host."""
    environ = os.environ if environ is None else environ
    faults: list[Fault] = []
    spec = inventory = None
    try:
        if options.config is not None:
            from flagscale_deploy.config.load import load_spec  # OmegaConf is slow to import

            spec = load_spec(Path(options.config), options.overrides, options.name, environ)
        elif options.overrides:
            faults += InputError.at(options.overrides[0], "overrides change a configuration", "give it with -c").faults
    except InputError as error:
        faults += error.faults
    try:
        inventory = replace(hosts_of(options.inventory, spec), options=_hosts_again(options, spec))
        inventory = limit_to(inventory, options.limit) if options.limit else inventory
    except InputError as error:
        faults += error.faults
    if faults or inventory is None:
        raise InputError(faults)
    return Request(inventory, spec, spec.name if spec else options.name, options)
