"""Refuse programs on this machine that hosts ask for which nobody has named."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping

from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.inventory.model import Host, Inventory

_SYSTEMS_PYTHON = re.compile(r"(?:/usr(?:/local)?/bin/)?python3?(?:\.\d{1,3})?")


def programs_here(inventory: Inventory, set_by_config: Mapping[str, Mapping[str, str]]) -> list[Fault]:
    """Return a fault for each host for which a program runs on this machine that the inventory chooses.

    A project file may come with a repository of strangers, and `status` alone would run that program.
    """
    remedy = f"read it, then name it: -i {inventory.source}, or FLAGSCALE_DEPLOY_INVENTORY"
    return [
        Fault(f"{inventory.source}: {host.name}", f"{word} would run programs, and nobody has named this file", remedy)
        for host in inventory.hosts
        for word in _words_that_run_here(
            host, {*set_by_config.get(host.name, ()), *set_by_config.get(host.address, ())}
        )
    ]


def config_here(inventory: Inventory, spec: ServeSpec, config: str | None) -> list[Fault]:
    """Return a fault for each setting by which a configuration that nobody has named runs something here."""
    if all(host.connection != "local" for host in inventory.hosts):
        return []
    remedy = f"read it, then name it: -c {config}, or FLAGSCALE_DEPLOY_CONFIG"
    problem = "would run on this machine with what it checks, and nobody has named this file"
    settings = {("cmds", "before_start"): spec.before_start, ("envs",): spec.env or any(spec.host_env.values())}
    return [Fault(spec.where("experiment", *key), problem, remedy) for key, value in settings.items() if value]


def _words_that_run_here(host: Host, others: Collection[str]) -> Iterator[str]:
    """Yield what of a host's settings makes a program run here; variables of these names are `others`'."""
    options = shlex.split(host.ssh_options or "")
    for word in ("-F", "ProxyCommand"):
        if any(option.partition("=")[0] == word and option != "ProxyCommand=none" for option in options):
            yield word
    if host.connection == "local":
        if not _SYSTEMS_PYTHON.fullmatch(host.python):
            yield "python"
        settings = {
            "env": {*host.env, *host.secret_env} - {*others},
            "venv": host.venv,
            "before_start": host.before_start,
        }
        yield from (f"{word} of a host with connection: local" for word, value in settings.items() if value)
