"""Describe a request's run: for its hosts to keep, and to compare it with what runs."""

from __future__ import annotations

from collections.abc import Callable

from flagscale_deploy.api.request import Request
from flagscale_deploy.deploy.secret_hash import differing_secrets
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.kept import KeptRun, Secrecy, describe_run, run_text
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.running import Running
from flagscale_deploy.plan.server_change import Difference
from flagscale_deploy.remote.deployment.kept import LONGEST, path_of
from flagscale_deploy.support.units import format_size


def describe(request: Request, plan: Plan, inputs: Inputs, redact: Callable[[str], str] = str) -> KeptRun:
    """Return what there is to keep of a run of this plan; no secrets, if `redact` knows them."""
    names = {owner: tuple(secrets) for owner, secrets in request.secrets_by_host.items()}
    return describe_run(plan, inputs, Secrecy(names, request.secret_hash, redact), request.options.overrides)


def kept_files(run: KeptRun, say: Sink) -> dict[str, str]:
    """Return the file for the hosts, none where it would be too large."""
    text = run_text(run)
    if len(text) <= LONGEST:
        return {path_of(run["run_id"]): text}
    size, most = format_size(len(text)), format_size(LONGEST)
    note = f"its configuration is not kept on the hosts: it takes {size}, and {most} is the most"
    say(Event("run", "note", text=note))
    return {}


def compare(
    request: Request, running: Running, plan: Plan, inputs: Inputs, redact: Callable[[str], str] = str
) -> Difference:
    """Return what would change if what runs became what is planned."""
    secrets, keys = differing_secrets(running.record.get("secret_hash"), request.secrets_by_host)
    return running.differs(describe(request, plan, inputs, redact), secrets_differ=secrets, keys_differ=keys)
