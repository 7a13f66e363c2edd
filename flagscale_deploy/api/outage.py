"""Tell for how long nothing would serve a model during a change, and refuse that where nobody has allowed it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from flagscale_deploy.api.change_session import Session
from flagscale_deploy.deploy.history import History
from flagscale_deploy.errors import CheckError
from flagscale_deploy.plan.change_order import Batch
from flagscale_deploy.plan.entrances import FRONTS, GATE
from flagscale_deploy.plan.gate_turn import Turn, gate_turn
from flagscale_deploy.plan.kept import KeptRun
from flagscale_deploy.support.units import format_duration


def refuse_outage(session: Session, batches: Iterable[Batch], before: KeptRun, after: KeptRun) -> None:
    """Raise CheckError where nothing would serve a model meanwhile, and nobody has allowed that."""
    down = [batch for batch in batches if batch.outage]
    if not down or session.how.allow_downtime:
        return
    turn = gate_turn(before, after)
    fronts = {server["name"] for run in (before, after) for server in run["servers"] if server["engine"] in FRONTS}
    models = ", ".join(dict.fromkeys(model for batch in down for model in batch.outage))
    problem = (
        f"nothing would serve {models} while {_what([*_names(down)], turn)}{_likely(down, session.history(), fronts)}"
    )
    remedy = "allow it with --allow-downtime"
    if turn is None and not fronts.issuperset(_names(down)):
        remedy += "; or serve through a router or deploy.gate, with a GPU to spare"
    raise CheckError.at(session.deployment, problem, remedy)


def _names(batches: Iterable[Batch]) -> Iterable[str]:
    return dict.fromkeys(name for batch in batches for name in batch.groups)


def _what(names: list[str], turn: Turn | None) -> str:
    """Return in words what restarts, and what becomes of the gate."""
    servers = [name for name in names if turn is None or name != GATE]
    restart = f"{', '.join(servers)} {'restarts' if len(servers) == 1 else 'restart'}"
    return restart if turn is None else f"the gate {turn} and {restart}"


def _likely(batches: Iterable[Batch], history: History, fronts: Collection[str]) -> str:
    """Return how long that takes by the last start of each server, "" where none is known.

    Servers of a batch start at the same time. A front that has started together with servers has waited for them: that
    says nothing of its own time.
    """
    starts = [change for change in history.changes if change.event == "ready" and change.took is not None]
    waited = {change.run_id for change in starts if change.server not in fronts}
    took: Mapping[str, float] = {
        change.server: change.took or 0.0
        for change in starts
        if change.server not in fronts or change.run_id not in waited
    }
    longest = [max(times) for batch in batches if (times := [took[name] for name in batch.groups if name in took])]
    return f", for about {format_duration(sum(longest))} by the last start" if longest else ""
