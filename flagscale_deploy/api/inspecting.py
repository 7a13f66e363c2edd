"""Look at a deployment, read its logs, and send requests to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from flagscale_deploy import logs as log_files
from flagscale_deploy.api.request import Request
from flagscale_deploy.deploy.history import History, read_history
from flagscale_deploy.deploy.kept_runs import compare_runs
from flagscale_deploy.deploy.probe_hosts import raise_failures
from flagscale_deploy.deploy.server_status import InstanceStatus
from flagscale_deploy.deploy.status import Status, look
from flagscale_deploy.deploy.token_looks import TokenLooks
from flagscale_deploy.diagnosis.find import Diagnosis
from flagscale_deploy.diagnosis.progress import Progress
from flagscale_deploy.errors import ConnectError, Fault, FaultsError, HostError, RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.logs import FileSelection, LineSelection
from flagscale_deploy.logs.collect import PATIENCE_SECONDS, silent
from flagscale_deploy.remote.messages.status import CHAT, ChatArguments, ChatCompletion, ChatReply
from flagscale_deploy.support import shell
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.support.units import format_time
from flagscale_deploy.transport.base import MAX_OUTPUT, Connection, LateError, Outcome, ending_with_input
from flagscale_deploy.transport.base import run as run_command
from flagscale_deploy.transport.fleet import Fleet, answers, failures
from flagscale_deploy.transport.reconnect import Tell
from flagscale_deploy.transport.remote_program import Program

CALL_SECONDS = 600.0
"""How long all servers together may take to answer a request: the head says how many there are."""


def status(request: Request, *, ask: bool = True, tokens: TokenLooks | None = None) -> Status:
    """Return the deployment's real state; hosts that cannot be reached are UNKNOWN.

    With `ask`, servers are asked for a token, with `tokens` not at each look. Where something is dead or unwell then,
    the ends of its logs are read for the cause; where an engine loads, for its stage.
    """
    with request.fleet() as fleet:
        current = look(fleet, request.deployment, request.inventory.head.name, ask=ask, tokens=tokens)
        if ask and any(server.state == "starting" for server in current.instances):
            stages = log_files.loading_stages(fleet, request.deployment)
            current = replace(current, instances=tuple(_with_stage(server, stages) for server in current.instances))
        if current.well or not ask:
            return current
        return replace(current, diagnosis=log_files.diagnose_ends(fleet, request.deployment))


def history(request: Request, run: str | None = None) -> History:
    """Return what became of the deployment: runs, updates, restarts and stops, by the histories that its hosts keep.

    With a `run`, or an update (its id, the beginning of it, or its number) only what belongs to it, and its
    configuration. Raises FaultsError for a name that no host has.
    """
    with request.fleet() as fleet:
        head = request.inventory.head.name
        read = read_history(fleet, request.deployment, head)
        if not read.changes and not read.unknown:
            fault = look(fleet, request.deployment, head, ask=False).unknown_name
            if fault is not None:
                raise FaultsError([fault])
        if run is None or (not read.changes and read.unknown):
            return read
        run_id = read.named(run)
        configuration = compare_runs(fleet, request.deployment, run_id, read.before(run_id), read.kept)
        return replace(read.of_run(run_id), configuration=configuration)


def _with_stage(server: InstanceStatus, stages: Mapping[tuple[str, str], Progress]) -> InstanceStatus:
    """Return a server that starts with what its log says of its start, for the port that does not answer yet."""
    progress = stages.get((server.driver, server.script.removesuffix(".sh")))
    if server.state != "starting" or progress is None:
        return server
    percent = "" if progress.percent is None else f", {progress.percent:.0f} %"
    return replace(server, problem=progress.stage + percent)


def diagnose(
    request: Request, into: Path | None, *, selection: FileSelection = FileSelection(), tell: Tell = silent
) -> tuple[Diagnosis | None, dict[str, log_files.Collected | HostError]]:
    """Collect every log of the deployment and find the cause in them; without `into`, the logs are not kept."""
    with TemporaryDirectory(prefix="flagscale-deploy-") as temporary:
        folder = into or Path(temporary)
        collected = collect(request, folder, selection=selection, tell=tell)
        return log_files.diagnose_folder(folder), collected


def diagnose_offline(folder: Path) -> Diagnosis | None:
    """Find the cause in logs on this disk: a folder of collected logs, of a run or of a host, or one file."""
    return log_files.diagnose_folder(folder)


def collect(
    request: Request, into: Path, *, selection: FileSelection = FileSelection(), tell: Tell = silent
) -> dict[str, log_files.Collected | HostError]:
    """Copy every log of the deployment into `<into>/<host>/`, continuing files that are there already.

    `tell` is called when a connection is lost and when it is back, and for a name that no host has.
    """
    with request.fleet() as fleet:
        collected = log_files.collect_logs(
            fleet, request.deployment, into, selection=selection, patience=PATIENCE_SECONDS, tell=tell
        )
        if not failures(collected) and not any(logs.files for logs in answers(collected).values()):
            _tell_unknown_name(request, fleet, tell)
        return collected


def _tell_unknown_name(request: Request, fleet: Fleet, tell: Tell) -> None:
    """Look whether any host has a deployment of this name; tell which there are where none has."""
    fault = look(fleet, request.deployment, request.inventory.head.name, ask=False).unknown_name
    if fault is not None:
        tell(fault.where, f"{fault.problem} → {fault.remedy}")


def follow(
    request: Request,
    show: log_files.Lines,
    selection: LineSelection = LineSelection(),
    *,
    follow: bool = False,
    tell: Tell = silent,
) -> dict[str, int | HostError]:
    """Pass the selected lines of the deployment's logs to `show` and, with `follow`, new ones as they are written.

    Returns how many files each host had. `tell` is called when a connection is lost and when it is back, and for a
    name that no host has.
    """
    with request.fleet() as fleet:
        if follow:
            _tell_unknown_name(request, fleet, tell)
        files = log_files.read_logs(fleet, request.deployment, show, selection, follow=follow, tell=tell).files
        if not follow and not any(files.values()):
            _tell_unknown_name(request, fleet, tell)
        return files


def call(
    request: Request,
    messages: Sequence[Mapping[str, str]],
    *,
    show: Callable[[str], None] | None = None,
    **parameters: object,
) -> ChatCompletion:
    """Send a chat completion to the deployment's router, else to its instances in turn; return the first answer.

    A program of the user's own may serve on any of its hosts, so each is asked. The request is sent from the server's
    own host. So the port need not be reachable from here, and the API key stays on the host. With `show`, the text is
    streamed: it is called with each piece as it comes. Raises HostError where no server answers, FaultsError where the
    deployment is stopped or nothing of it runs.
    """
    with request.fleet() as fleet:
        current = look(fleet, request.deployment, request.inventory.head.name, ask=False)
        entrances = entrances_for(request, current)
        problems: list[HostError] = []
        deadline = Deadline(CALL_SECONDS)
        shown: list[str] = []

        def take(piece: str) -> None:
            shown.append(piece)
            if show is not None:
                show(piece)

        places = [(entrance, host) for entrance in entrances for host in _hosts(entrance, fleet)]
        for server, host in places:
            if deadline.expired:
                break
            args: ChatArguments = {
                "deployment": request.deployment,
                "host": host,
                "server": server.name,
                "messages": list(messages),
                "parameters": parameters,
                "stream": show is not None,
            }
            try:
                reply = _ask(fleet.connection(host), args, take, deadline.remaining)
            except HostError as error:
                problems.append(error)
            else:
                if choices := reply.get("answer", {}).get("choices"):
                    if shown:
                        choices[0]["message"]["content"] = "".join(shown)
                    return reply["answer"]
                problem = f"{server.name}: {reply.get('problem', 'it sent no answer')}"
                problems.append(RemoteError(host, problem, "look at `status` and `logs`"))
            if shown:  # no other server can go on with it
                raise problems[-1]
        raise problems[0]


def entrances_for(request: Request, current: Status) -> tuple[InstanceStatus, ...]:
    """Return the servers for clients. Raises FaultsError where nothing runs, HostError where the head cannot tell."""
    raise_unknown(current)
    if not current.instances:
        problem, remedy = "no host has a record of what runs of it", "`stop` ends that; start it with `run`"
        raise FaultsError([current.unknown_name or Fault(request.deployment, problem, remedy)])
    if not current.trusted:
        raise _untrusted(request.inventory.head.name, current)
    _refuse_ended(current)
    return current.entrances


def _refuse_ended(current: Status) -> None:
    """Raise FaultsError for a deployment that failed or was stopped, or of which nothing runs any more."""
    if current.failure is not None and not current.live_processes:
        problem = f"its last run failed at {format_time(current.failure['at'])}: {current.failure['cause']}"
        raise FaultsError.at(current.deployment, problem, current.failure_remedy)
    if current.stopped_at and all(server.state == "stopped" for server in current.entrances):
        when = format_time(current.stopped_at)
        raise FaultsError.at(current.deployment, f"it is stopped since {when}", "start it with `run`")
    if not current.live_processes and all(host.state != "UNKNOWN" for host in current.hosts):
        began = f", started {format_time(current.started_at)}" if current.started_at else ""
        problem = f"nothing of it runs any more (run {current.run_id}{began})"
        raise FaultsError.at(current.deployment, problem, "`logs --diagnose` says why; then `stop` and `run`")


def _ask(connection: Connection, args: ChatArguments, take: Callable[[str], None], seconds: float) -> ChatReply:
    """Return the last reply of the host program; pass each piece of a streamed text on before."""
    reply: ChatReply = {}
    with Program(connection, CHAT, args, timeout=seconds) as program:
        for reply in program.messages():
            if "piece" in reply:
                take(reply["piece"])
    return reply


def _untrusted(head: str, current: Status) -> HostError:
    """Return why nothing is sent where only other hosts than the head say that a server is."""
    for host in current.hosts:
        if host.host == head and host.state == "UNKNOWN":
            return ConnectError(head, f"{host.problem}; only its record tells which server a prompt may be sent to")
    remedy = "name the deployment's own head first in the inventory; `status` shows what the hosts have"
    return RemoteError(head, current.note, remedy)


def _hosts(server: InstanceStatus, fleet: Fleet) -> list[str]:
    """Return the hosts to send a request from: that of the driver, and for a user's own program any other too."""
    others = () if server.served_name else (name for name in server.hosts if name in fleet.hosts)
    return list(dict.fromkeys((server.driver, *others)))


def execute_everywhere(
    request: Request, words: Sequence[str], *, timeout: float, max_output: int = MAX_OUTPUT, env: bool = False
) -> dict[str, Outcome | HostError]:
    """Run a command on every host: one word is a shell command, several are a program and its arguments.

    At most `max_output` bytes of each output of each host are kept. After `timeout` seconds, or when the caller is
    interrupted, the command's process group is ended. With `env`, bash enters the host's environment first.
    """
    text = words[0] if len(words) == 1 else shell.join(words)

    def act(host: Host) -> Outcome:
        command = host_command(host, f"{environment_of(host)}{text}" if env else text, "bash" if env else "")
        try:
            return run_command(
                fleet.connection(host.name),
                command,
                timeout=timeout,
                cancelled=fleet.cancelled,
                max_output=max_output,
                hold_input=True,
            )
        except LateError as error:
            what = "it was ended" if error.ended else "it could not be seen to end, and may still run"
            problem = f"the command was not done at its time limit of {timeout:g} s; {what}"
            raise RemoteError(host.name, problem, "give it more with --timeout SECONDS") from error

    with request.fleet() as fleet:
        return fleet.map(act)


def raise_unknown(current: Status) -> None:
    """Raise the errors of unreachable hosts if no instance of the deployment is known."""
    unknown = [ConnectError(host.host, host.problem) for host in current.hosts if host.state == "UNKNOWN"]
    if unknown and not current.instances:
        raise_failures({error.host: error for error in unknown})


def host_command(host: Host, text: str, program: str) -> str:
    """Return the command that runs shell text on a host, in its container if it has one, until its input ends."""
    if host.container:
        return shell.join(["docker", "exec", "-i", host.container, *ending_with_input(text, program or "sh")])
    plain = "/bin/sh" if host.connection == "local" else ""
    return "exec " + shell.join(ending_with_input(text, program or plain))


def environment_of(host: Host) -> str:
    """Return shell that enters a host's environment: its variables, its venv and its `before_start`; no secrets."""
    lines = [f"export {name}={shell.quote(value)}" for name, value in host.env.items()]
    if host.venv:
        lines.append(f". {shell.quote_path(host.venv)}/bin/activate || exit")
    return "".join(f"{line}\n" for line in [*lines, *([host.before_start] if host.before_start else [])])
