"""Looks at every host, all at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import ConnectError, HostError, HostsFailedError, HostsUnreachableError
from flagscale_deploy.facts.model import TLS_FLAGS, Facts, Observation
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.messages.probe import PROBE, ProbeArguments
from flagscale_deploy.transport.fleet import Fleet, failures
from flagscale_deploy.transport.remote_program import Program


def observe(
    fleet: Fleet, spec: ServeSpec | None = None, *, timeout: float = 60.0, clock: Callable[[], float] = time.time
) -> dict[str, Observation]:
    """One probe on every host: facts, or the error that kept us from them.

    With a specification, versions are looked up in the environment that its `before_start` makes, and models where its
    engines will. `clock` tells the operator's Unix time.
    """

    from flagscale_deploy.plan.stages import before_start  # and with it Jinja, where somebody only raises failures

    def look(host: Host) -> Facts:
        env = {**(spec.env if spec else {}), **host.env}
        commands = before_start(spec, host) if spec else host.before_start
        args: ProbeArguments = {
            "host": host.name,
            "venv": host.venv,
            "before_start": commands,
            "env": env,
            "models": models,
            "tls_files": tls,
        }
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
    """The models that hosts have to have: those given as a path, which no name on Hugging Face looks like."""
    found = [each.model for each in spec.models if each.model.startswith(("/", "~", "./", "../"))]
    return list(dict.fromkeys(found))


def tls_files(spec: ServeSpec) -> list[str]:
    """The files on hosts that engines and routers are told of for TLS."""
    tls = spec.tls
    shared = [tls.certfile, tls.keyfile, tls.cafile] if tls is not None else []
    flags = [*(each.engine_args for each in spec.models), *spec.host_engine_args.values()]
    own = [each[flag] for each in flags for flag in TLS_FLAGS if each.get(flag)]
    named = [action.partition("=") for each in spec.models for action in each.action_args]
    own += [path for flag, _, path in named if flag in TLS_FLAGS and path]
    there = [str(path) for path in shared + own if path and not (tls is not None and path in tls.sent)]
    return list(dict.fromkeys(there))


def facts_of(observations: Mapping[str, Observation]) -> dict[str, Facts]:
    """The facts of every host. Raises as `raise_failures` does if one has none."""
    raise_failures({name: each.error for name, each in observations.items() if each.error is not None})
    return {name: each.facts for name, each in observations.items() if each.facts is not None}


def raise_failures(results: Mapping[str, object]) -> None:
    """Raise what kept hosts from answering, if anything did, all hosts together.

    HostsUnreachableError where one could not be reached, else the error of one host or HostsFailedError of several.
    """
    errors = list(failures(results).values())
    if any(isinstance(error, ConnectError) for error in errors):
        raise HostsUnreachableError(errors)
    if errors:
        raise HostsFailedError(errors) if len(errors) > 1 else errors[0]
