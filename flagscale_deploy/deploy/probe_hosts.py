"""Probe all hosts at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import ConnectError, HostError, HostsFailedError, HostsUnreachableError
from flagscale_deploy.facts.model import TLS_FLAGS, Facts, Observation
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.messages.probe import PROBE, ProbeArguments
from flagscale_deploy.support.shell import exports, literals
from flagscale_deploy.transport.fleet import Fleet, failures
from flagscale_deploy.transport.remote_program import Program


def observe(
    fleet: Fleet, spec: ServeSpec | None = None, *, timeout: float = 60.0, clock: Callable[[], float] = time.time
) -> dict[str, Observation]:
    """Probe every host; return its facts, or the error that prevented them.

    With a specification, versions are looked up in the environment that its `before_start` makes, and models where its
    engines will look for them. `clock` returns the operator's Unix time.
    """
    from flagscale_deploy.plan.stages import before_start  # imports Jinja, which callers of raise_failures do not need

    def look(host: Host) -> Facts:
        env = {**(spec.env if spec else {}), **host.env}
        commands = before_start(spec, host) if spec else host.before_start
        args: ProbeArguments = {
            "host": host.name,
            "venv": host.venv,
            "before_start": commands,
            "env": literals(env),
            "exports": exports(env),
            "models": models,
            "tls_files": tls,
        }
        if spec is not None:
            args |= {"deployment": spec.name, "hosts": list(fleet.hosts)}
        if spec is not None and spec.restart.boot:
            args["boot"] = "container" if host.container else "host"
        connection = fleet.connection(host.name)
        with Program(connection, PROBE, args, timeout=timeout, cancelled=fleet.cancelled) as program:
            facts = Facts.parse(program.last())
            return replace(facts, noise=program.noise, asked_at=clock())

    models, tls = (local_models(spec), tls_files(spec)) if spec else ([], [])
    return {
        name: Observation(name, error=result) if isinstance(result, HostError) else Observation(name, result)
        for name, result in fleet.map(look).items()
    }


def local_models(spec: ServeSpec) -> list[str]:
    """Return the models that hosts need on their disks: those given as a path instead of a Hugging Face name."""
    paths = [model.model for model in spec.models if model.model.startswith(("/", "~", "./", "../"))]
    return list(dict.fromkeys(paths))


def tls_files(spec: ServeSpec) -> list[str]:
    """Return the paths on hosts that engines and routers get in TLS options."""
    tls = spec.tls
    shared = [tls.certfile, tls.keyfile, tls.cafile] if tls is not None else []
    flags = [*(model.engine_args for model in spec.engines), *spec.host_engine_args.values()]
    own = [args[flag] for args in flags for flag in TLS_FLAGS if args.get(flag)]
    named = [action.partition("=") for model in spec.models for action in model.action_args]
    own += [path for flag, _, path in named if flag in TLS_FLAGS and path]
    there = [str(path) for path in shared + own if path and not (tls is not None and path in tls.sent)]
    return list(dict.fromkeys(there))


def facts_of(observations: Mapping[str, Observation]) -> dict[str, Facts]:
    """Return the facts of every host. Raises like `raise_failures` if a host has none."""
    raise_failures(
        {name: observation.error for name, observation in observations.items() if observation.error is not None}
    )
    return {name: observation.facts for name, observation in observations.items() if observation.facts is not None}


def raise_failures(results: Mapping[str, object]) -> None:
    """Raise the errors among the results of hosts, if there are any.

    Raises HostsUnreachableError where a host could not be reached, else the error of the one host that failed, or
    HostsFailedError for several.
    """
    errors = list(failures(results).values())
    if any(isinstance(error, ConnectError) for error in errors):
        raise HostsUnreachableError(errors)
    if errors:
        raise HostsFailedError(errors) if len(errors) > 1 else errors[0]
