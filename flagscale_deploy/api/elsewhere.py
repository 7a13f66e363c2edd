"""Look for the rest of a deployment on the hosts of the inventory that `--limit` leaves out."""

from __future__ import annotations

from dataclasses import replace

from flagscale_deploy.api.request import Request, host_options
from flagscale_deploy.deploy.status import ASK_SECONDS
from flagscale_deploy.errors import CheckError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.inventory.command_line import again
from flagscale_deploy.remote.messages.record import Record
from flagscale_deploy.remote.messages.status import INSPECT, InspectReply
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.fleet import Fleet, answers, failures


def refuse_second(request: Request, others: Fleet, say: Sink) -> None:
    """Raise CheckError where a deployment of this name runs on `others`, the hosts that `--limit` leaves out."""
    rest = _rest(request, others, say)
    if rest:
        record = next(iter(rest.values()))
        run = f"run {record.get('run_id')} of {record.get('operator')}"
        problem = f"it runs already on {', '.join(rest)}, which --limit leaves out ({run})"
        raise CheckError.at(
            request.deployment, problem, f"{_stop_all(request)}, then run again; or choose another --name"
        )


def refuse_part(request: Request, fleet: Fleet, say: Sink) -> None:
    """Raise CheckError where what runs on the hosts of `--limit` is needed by the rest of the deployment."""
    with request.fleet_of_others() as others:
        rest = _rest(request, others, say)
    here = [name for name, reply in _inspect(fleet, request.deployment).items() if reply["live"]] if rest else []
    broken = list(dict.fromkeys(server for record in rest.values() for server in _needing(record, here)))
    if broken:
        problem = f"it runs on {', '.join(rest)} too, which --limit leaves out; this breaks {', '.join(broken)}"
        remedy = f"stop all of it: {_stop_all(request)}; or only this part, with --force"
        raise CheckError.at(request.deployment, problem, remedy)


def _stop_all(request: Request) -> str:
    """Return the command line that stops the deployment on all hosts of the inventory."""
    everywhere = host_options(replace(request.options, limit=None), request.spec)
    return again(replace(request.inventory, options=everywhere), "stop", request.deployment)


def _rest(request: Request, others: Fleet, say: Sink) -> dict[str, Record]:
    """Return the records of what lives on the other hosts; those that cannot be asked are noted."""
    replies = _inspect(others, request.deployment, say)
    records = {name: reply["record"] for name, reply in replies.items() if reply["live"]}
    return {name: record for name, record in records.items() if record and not record.get("stopped_at")}


def _inspect(fleet: Fleet, deployment: str, say: Sink | None = None) -> dict[str, InspectReply]:
    """Return the replies of the hosts that can be asked; note the others."""
    results = fleet.call(
        INSPECT, lambda host: {"deployment": deployment, "host": host.name, "ask": False}, timeout=ASK_SECONDS
    )
    unasked = failures(results)
    if unasked and say is not None:
        first = next(iter(unasked.values())).problem
        text = f"whether {deployment} runs on {counted(len(unasked), 'other host')} is not known: {first}"
        say(Event("look", "note", ", ".join(unasked), text))
    return answers(results)


def _needing(record: Record, hosts: list[str]) -> list[str]:
    """Return what of a deployment runs on these hosts, or by them."""
    servers = [*record.get("instances", ()), *record.get("routers", ())]
    needing = [
        f"{server['name']} ({', '.join(server['hosts'])})"
        for server in servers
        if {server["driver"], *server["hosts"]} & {*hosts}
    ]
    ray = record.get("ray")
    return [*needing, "Ray, whose head is there"] if ray and ray["enabled"] and record.get("head") in hosts else needing
