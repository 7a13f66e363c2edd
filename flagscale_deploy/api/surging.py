"""Plan more groups of a model, which serve while others of it are changed."""

from __future__ import annotations

from dataclasses import replace

from flagscale_deploy.api.change_session import Session
from flagscale_deploy.api.describing import describe
from flagscale_deploy.api.planning import Sources
from flagscale_deploy.api.request import Request
from flagscale_deploy.deploy.update import Target
from flagscale_deploy.plan.change_order import is_pooled, places, stays_in_front
from flagscale_deploy.plan.entrances import FRONTS
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.kept import KeptRun
from flagscale_deploy.plan.planner import draft
from flagscale_deploy.plan.running import Running
from flagscale_deploy.plan.server_change import Difference


def more_groups(
    session: Session, request: Request, base: KeptRun, to: Target, made: Difference, number: int, sources: Sources
) -> Target | None:
    """Return a target with `number` more groups of each model that is changed; None where there is no room.

    Nor where Ray nodes change: Ray might put the new group where one leaves.

    Only models whose clients go through a router or the gate get more. All other groups have the places of `to`.
    """
    models = _changing(base, to.kept, made)
    spec = request.serve
    more = tuple(
        replace(model, replicas=model.replicas + number)
        if model.name in models and isinstance(model.replicas, int)
        else model
        for model in spec.models
    )
    wanted = replace(request, spec=replace(spec, models=more))
    held = Running({}, to.kept).held
    inputs = Inputs(request.inventory, wanted.serve, session.facts, to.run.plan.run_id, *sources, held=held)
    plan = draft(inputs).plan if more != spec.models and not made.nodes else None
    if plan is None:
        return None
    kept = describe(wanted, plan, inputs, session.redactor.redact)
    there, before, planned = places(kept), places(base), places(to.kept)
    groups = [server["name"] for server in kept["servers"] if server["engine"] not in FRONTS]
    if any(there[name] != planned[name] for name in groups if name in planned):
        return None
    if kept["ray"]["nodes"] != to.kept["ray"]["nodes"]:
        return None
    taken = frozenset[tuple[str, str, int]]().union(*before.values(), *planned.values())
    if any(there[name] & taken for name in groups if name not in planned):
        return None
    return Target(replace(to.run, plan=plan), kept)


def _changing(base: KeptRun, wanted: KeptRun, made: Difference) -> set[str]:
    """Return the models of which more groups can take over the requests of those that are changed."""
    changed = {change.name for change in made.changed if change.kind in ("restarted", "moved")}
    own = {server["model"] for server in wanted["servers"] if server["name"] in changed and not is_pooled(server)}
    return own & stays_in_front(base, wanted)
