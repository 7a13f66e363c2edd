"""Looking at what runs, and talking to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flagscale_deploy import logs as log_files
from flagscale_deploy.api.request import Request
from flagscale_deploy.deploy.probe import raise_failures
from flagscale_deploy.deploy.status import Status, look
from flagscale_deploy.diagnosis.find import Diagnosis
from flagscale_deploy.errors import ConnectError, FaultsError, HostError, RemoteError
from flagscale_deploy.logs.collect import PATIENCE_SECONDS, silent
from flagscale_deploy.support import shell
from flagscale_deploy.transport.base import MAX_OUTPUT, Outcome
from flagscale_deploy.transport.base import run as run_command
from flagscale_deploy.transport.reconnect import Tell
from flagscale_deploy.transport.remote_program import call as call_program

CALL_SECONDS = 600.0


def status(request: Request, *, ask: bool = True) -> Status:
    """What of the deployment is really there; hosts that can't be reached are UNKNOWN in it.

    Where something is dead or unwell and `ask` is set, the ends of its logs are read for the cause.
    """
    with request.fleet() as fleet:
        found = look(fleet, request.deployment, ask=ask)
        if found.well or not ask:
            return found
        return replace(found, diagnosis=log_files.diagnose_ends(fleet, request.deployment))


def diagnose(
    request: Request, into: Path | None, *, wanted: log_files.Wanted | None = None, tell: Tell = silent
) -> tuple[Diagnosis | None, dict[str, log_files.Collected | HostError]]:
    """Collect every log of the deployment (into a folder that goes, if none is given), and find the cause in them."""
    with TemporaryDirectory(prefix="flagscale-deploy-") as passing:
        folder = into or Path(passing)
        collected = collect(request, folder, wanted=wanted, tell=tell)
        return log_files.diagnose_folder(folder), collected


def diagnose_offline(folder: Path) -> Diagnosis | None:
    """Find the cause in logs on this disk: collected ones, a run's folder, a host's, or one file."""
    return log_files.diagnose_folder(folder)


def collect(
    request: Request, into: Path, *, wanted: log_files.Wanted | None = None, tell: Tell = silent
) -> dict[str, log_files.Collected | HostError]:
    """Every log of the deployment into `<into>/<host>/`, on from what lies there; `tell` hears of lost connections."""
    with request.fleet() as fleet:
        return log_files.collect_logs(
            fleet, request.deployment, into, wanted=wanted, patience=PATIENCE_SECONDS, tell=tell
        )


def follow(
    request: Request,
    show: log_files.Lines,
    *,
    tail: int | None,
    follow: bool,
    kinds: Sequence[str] | None,
    wanted: log_files.Wanted | None = None,
    tell: Tell = silent,
) -> dict[str, int | HostError]:
    """Hand the last lines of the deployment's logs to `show`, then new ones; `tell` hears of lost connections."""
    with request.fleet() as fleet:
        return log_files.read_logs(
            fleet, request.deployment, show, tail=tail, follow=follow, kinds=kinds, wanted=wanted, tell=tell
        )


def call(request: Request, messages: Sequence[Mapping[str, str]], **parameters: Any) -> dict[str, Any]:
    """Send a chat completion to the deployment's router, or first instance that answers; the server's answer.

    It is sent from the server's own host: that works where the port is not reachable from here, and the API key
    stays on the host.
    """
    with request.fleet() as fleet:
        found = look(fleet, request.deployment, ask=False)
        raise_unknown(found)
        if not found.instances:
            raise FaultsError.at(
                request.deployment, "no such deployment on these hosts", "see `status`; start it with `run`"
            )
        problems: list[HostError] = []
        for server in found.entrances:
            args = {"deployment": request.deployment, "host": server.driver, "server": server.name}
            try:
                connection = fleet.connection(server.driver)
                asked = {**args, "messages": list(messages), "parameters": parameters}
                answer = call_program(connection, "chat", asked, timeout=CALL_SECONDS)
            except HostError as error:
                problems.append(error)
                continue
            if "answer" in answer:
                return dict(answer["answer"])
            problem = f"{server.name}: {answer['problem']}"
            problems.append(RemoteError(server.driver, problem, "see `status` and `logs`"))
        raise problems[0]


def execute_everywhere(
    request: Request, words: Sequence[str], *, timeout: float, max_output: int = MAX_OUTPUT
) -> dict[str, Outcome | HostError]:
    """Run a command on every host; one word is shell, several are a program and its arguments. Of each output of each
    host at most `max_output` bytes are kept."""
    text = words[0] if len(words) == 1 else shell.join(words)
    with request.fleet() as fleet:
        return fleet.map(
            lambda host: run_command(
                fleet.connection(host.name),
                _inside(host.container, text),
                timeout=timeout,
                cancelled=fleet.cancelled,
                max_output=max_output,
            )
        )


def raise_unknown(found: Status) -> None:
    """Raise what kept hosts from answering, if nothing at all is known of the deployment."""
    unknown = [ConnectError(host.host, host.problem) for host in found.hosts if host.state == "UNKNOWN"]
    if unknown and not found.instances:
        raise_failures({error.host: error for error in unknown})


def _inside(container: str | None, text: str) -> str:
    return shell.join(["docker", "exec", "-i", container, "sh", "-c", text]) if container else text
