"""Turn files and options into hosts and, where a configuration is given, a specification."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from flagscale_deploy.api.hosts import hosts_of
from flagscale_deploy.api.unnamed_hosts import config_here, programs_here
from flagscale_deploy.config.gate import API_KEY, KEY_VARIABLE
from flagscale_deploy.config.schema.places import Document
from flagscale_deploy.config.spec import ServeSpec, Timeouts
from flagscale_deploy.deploy.secret_hash import hash_secrets
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory.assembly import checked
from flagscale_deploy.inventory.command_line import again
from flagscale_deploy.inventory.load import LOCALHOST, default_inventory
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.inventory.patterns import limit as limit_to
from flagscale_deploy.inventory.patterns import without as leave_out
from flagscale_deploy.plan.running import Running
from flagscale_deploy.recipes.name import Wish, draft, is_recipe, read_wish
from flagscale_deploy.secrets import Redactor, Secret
from flagscale_deploy.support.learn_secrets import learn_text, quoting_no_secret, taught
from flagscale_deploy.support.paths import deployment_name_fault
from flagscale_deploy.transport.fleet import Connect, Fleet, connect

_OF_THE_DRAFT = re.compile(r"(?:deploy|experiment)\.", re.ASCII)
"""Overrides that tell name, hosts and timeouts, which commands need that do not plan."""
OTHERS_SECONDS = 5.0
"""How long a connection may take to a host that the command does not act on."""


@dataclass(frozen=True)
class Options:
    """Files, hosts and names, as every command takes them."""

    inventory: str | None = None
    config: str | None = None
    overrides: tuple[str, ...] = ()
    name: str | None = None
    limit: str | None = None
    without: str | None = None
    """A host pattern: nothing is planned on these hosts, and what runs there may be stopped."""
    forks: int = 64
    connect: Connect = connect
    acts: bool = False
    """Whether the command changes hosts: it does not fall to this machine where no hosts are named."""
    unnamed: bool = False
    """Whether the inventory is that of a file which was found: no program of its choice runs on this machine."""
    unnamed_config: bool = False
    """Whether the same is true of the configuration, and the command runs on hosts what it says."""
    recipes: str | None = None
    """A folder of recipes; None: that of FLAGSCALE_DEPLOY_RECIPES, else the site."""


@dataclass(frozen=True)
class PlanOptions:
    """How `plan`, `check`, `run` and `smoke` plan.

    `templates` is a folder of script templates that replace the packaged ones. `force` also uses GPUs that other
    processes use. `skip` names checks to leave out; `plan` makes none. `wait` is for how many seconds a run waits for
    GPUs and ports that others have. What is `running` keeps its run id, and its places where that is possible.
    """

    templates: Path | None = None
    force: bool = False
    skip: Collection[str] = ()
    wait: float = 0.0
    running: Running | None = None


@dataclass(frozen=True)
class Request:
    """Hosts, and what to serve on them. `others` are the hosts that `--limit` and `--without` leave out.

    With a `wish` the specification is a draft: the recipe is read where a plan is made (`api/recipes.py`).
    """

    inventory: Inventory
    spec: ServeSpec | None
    name: str | None
    options: Options
    others: tuple[Host, ...] = ()
    wish: Wish | None = None
    hides_logs: bool = False
    """Whether logs and scripts of a run are kept without secrets: others will read them."""
    redactor: Redactor = field(default_factory=Redactor, repr=False, compare=False)
    """What hides the secrets that its files hold anywhere, in what is kept and shown."""

    @property
    def deployment(self) -> str:
        """Return the deployment's name. Raises InputError where none was given."""
        if self.name is None:
            raise InputError.at("--name", "no deployment is named", "give -c/--config, or --name")
        return self.name

    @property
    def serve(self) -> ServeSpec:
        """Return the specification. Raises InputError where none was given, or no recipe was read yet."""
        if self.wish is not None:
            raise InputError.at(self.spec.source if self.spec else "-c", "the recipe was not read", "call settle first")
        if self.spec is None:
            raise InputError.at("-c/--config", "no configuration is given", "name a serve YAML with -c/--config")
        return self.spec

    @property
    def is_here_by_default(self) -> bool:
        """Return whether it is about this machine because no hosts are named."""
        return not _names_hosts(self.options, self.spec)

    @property
    def timeouts(self) -> Timeouts:
        """Return the timeouts of the specification, or the defaults."""
        return self.spec.timeouts if self.spec else Timeouts()

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Return every value that must not be printed."""
        hosts = (secret for host in self.inventory.hosts for secret in host.secret_env.values())
        return (*(self.spec.secret_env.values() if self.spec else ()), *self.gate_keys.values(), *hosts)

    @property
    def gate_keys(self) -> Mapping[str, Secret]:
        """Return the keys of the gate's clients by name."""
        return self.spec.gate.keys if self.spec and self.spec.gate else {}

    @property
    def secrets_by_host(self) -> dict[str, dict[str, Secret]]:
        """Return the secrets of each host, under "" and "tls" those of all hosts, under "gate" its keys.

        Behind a gate, VLLM_API_KEY is one of its keys: servers take another one.
        """
        tls = self.spec.tls.sent if self.spec and self.spec.tls else {}
        common = dict(self.spec.secret_env if self.spec else {})
        owners = {**{host.name: dict(host.secret_env) for host in self.inventory.hosts}, "": common}
        keys = dict(self.gate_keys)
        if self.spec and self.spec.gate:
            key = {**common, **self.inventory.head.secret_env}.get(KEY_VARIABLE)
            keys |= {} if key is None else {API_KEY: key}
            for named in owners.values():
                named.pop(KEY_VARIABLE, None)
        return {
            **owners,
            "tls": {name: content for name, content in tls.items() if isinstance(content, Secret)},
            "gate": keys,
        }

    @cached_property
    def secret_hash(self) -> str:
        """Return the salted hash of all secrets, for the records of one run."""
        return hash_secrets(self.secrets_by_host)

    def again(self, act: str) -> str:
        """Return the command line of another command with the same hosts and configuration, to paste."""
        options, hosts = self.options, self.inventory.options or ()
        config = ("-c", options.config) if options.config is not None and "-c" not in hosts else ()
        recipes = ("--recipes", options.recipes) if options.recipes is not None else ()
        overrides = [override for override in options.overrides if override not in hosts]
        return again(self.inventory, act, self.deployment, *config, *recipes, *overrides)

    def fleet(self) -> Fleet:
        """Return connections to all hosts; none is open yet."""
        return self._fleet_of(self.inventory.hosts, self.timeouts.connect)

    def fleet_of_all(self) -> Fleet:
        """Return connections to all hosts, `others` too; none is open yet."""
        return self._fleet_of((*self.inventory.hosts, *self.others), self.timeouts.connect)

    def fleet_of_others(self) -> Fleet:
        """Return connections to `others`, for which nobody waits long; none is open yet."""
        return self._fleet_of(self.others, min(OTHERS_SECONDS, self.timeouts.connect))

    def _fleet_of(self, hosts: Sequence[Host], connect_timeout: float) -> Fleet:
        options = self.options
        return Fleet(hosts, forks=options.forks, connect_timeout=connect_timeout, connect=options.connect)


def _names_hosts(options: Options, spec: ServeSpec | None) -> bool:
    return options.inventory is not None or (spec is not None and (spec.hostfile is not None or bool(spec.nodes)))


def host_options(options: Options, spec: ServeSpec | None) -> tuple[str, ...]:
    """Return the options that name the same hosts to another command.

    These are the inventory, the limit, and the configuration where it names hosts or tells how to reach them. Hosts of
    `--without` are among them: they have a part in the deployment, which `stop` has to end.
    """
    hosts = options.inventory if _names_hosts(options, spec) else LOCALHOST
    inventory = ("-i", hosts) if hosts is not None else ()
    limit = ("--limit", options.limit) if options.limit else ()
    if spec is None or options.config is None or (inventory and spec.ssh_port is None and spec.docker is None):
        return (*inventory, *limit)
    overrides = (override for override in options.overrides if "runner" in override.partition("=")[0])
    return (*inventory, "-c", options.config, *limit, *overrides)


def _with_default_inventory(
    options: Options, spec: ServeSpec | None, environ: Mapping[str, str]
) -> tuple[Options, tuple[str, ...]]:
    """Return the options with the inventory of `ansible.cfg`, where nothing else names hosts, and a note on that.

    Raises InputError where no hosts are named to a command that changes hosts.
    """
    if _names_hosts(options, spec):
        return options, ()
    path = default_inventory(environ)
    if path is None and options.acts:
        raise InputError.at(
            "-i/--inventory",
            "no hosts are named, and this command changes hosts",
            f"give -i FILE, or -i {LOCALHOST} for this machine alone",
        )
    if path is None:
        return options, ()
    return replace(options, inventory=path, unnamed=True), (
        f"without -i, the hosts are those of {path}, as ansible.cfg says",
    )


@quoting_no_secret
def load_request(
    options: Options,
    environ: Mapping[str, str] | None = None,
    document: Document | None = None,
    variables: Mapping[str, str] | None = None,
) -> Request:
    """Read the files that options name; contact no host. Raises InputError with the faults of all files.

    `document` is the serve YAML in place of `options.config`; without it a recipe is not read yet. `variables` are
    those that the serve YAML may name, if they are others than those of `environ`.
    """
    environ = os.environ if environ is None else environ
    wish: Wish | None = None
    for word in options.overrides:
        learn_text(word)
    faults: list[Fault] = []
    spec = inventory = None
    notes: tuple[str, ...] = ()
    others: tuple[Host, ...] = ()
    try:
        if options.config is not None:
            from flagscale_deploy.config.load import load_spec  # OmegaConf is slow to import

            source, words = document or Path(options.config), options.overrides
            if is_recipe(options.config):
                wish, words = read_wish(options.config, words)
                if document is None:
                    source, words = draft(options.config, wish), tuple(filter(_OF_THE_DRAFT.match, words))
            spec = load_spec(source, words, options.name, environ if variables is None else variables)
        elif options.overrides:
            faults += InputError.at(
                options.overrides[0], "an override needs a configuration", "name it with -c/--config"
            ).faults
    except InputError as error:
        faults += error.faults
    try:
        options, notes = _with_default_inventory(options, spec, environ)
        whole = replace(hosts_of(options.inventory, spec, environ), options=host_options(options, spec))
        inventory = limit_to(whole, options.limit) if options.limit else whole
        inventory = checked(leave_out(inventory, options.without) if options.without else inventory)
        if options.unnamed:
            faults += programs_here(inventory, spec.host_env if spec else {})
        if options.unnamed_config and spec is not None:
            faults += config_here(inventory, spec, options.config)
        taken = {*inventory.names, *whole.faults}
        others = tuple(host for host in whole.hosts if host.name not in taken)
    except InputError as error:
        faults += error.faults
    if spec is None and options.name is not None:
        faults += deployment_name_fault(options.name, "--name")
    if faults or inventory is None:
        raise InputError(faults)
    inventory = replace(inventory, notes=(*notes, *inventory.notes))
    name = spec.name if spec else options.name
    return Request(inventory, spec, name, options, others, wish if document is None else None, redactor=taught())
