"""Wait on the driver host for an instance to be ready, and report everything that is seen on the way.

A server that was ready may be restarted from then on (`deployment/restart_permits.py`), where that was asked for; its
process in the record then has `ready_at`.
"""

from __future__ import annotations

import os
import select
import threading
import time
from typing import IO, TYPE_CHECKING, Callable, List, Optional, Tuple, Union

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import history, record, restart_permits, shared_memory
from flagscale_deploy.remote.deployment.port_guard import ForeignListenerError
from flagscale_deploy.remote.engine import openai, program
from flagscale_deploy.remote.engine.client import Client
from flagscale_deploy.remote.engine.transfers import Transfers
from flagscale_deploy.remote.system import files, oom
from flagscale_deploy.remote.system.proc import age, lives
from flagscale_deploy.remote.wire import input_ended

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.program import Target
    from flagscale_deploy.remote.messages.record import Record
    from flagscale_deploy.remote.messages.run import WatchArguments, WatchedProgram, WatchReply

send: Callable[[WatchReply], None] = wire.send

POLL_SECONDS = 0.1
LINES_AT_ONCE = 500
READ_BYTES, LONGEST_LINE = 1 << 20, 64 << 10
BYTES_PER_SECOND, BURST, KEPT_BYTES = 1 << 20, 4 << 20, 64 << 10
"""How much of a log is sent. vLLM writes about 100 KiB while it starts."""


def main(args: WatchArguments) -> None:
    """Report the log until the instance is ready, has ended, or its time is over."""
    end = time.monotonic() + args["timeout"]
    own = args.get("program")
    asking = poll(args)
    with files.open_regular(args["log"]) as log:
        reader = Lines(log)
        while not input_ended():
            alive = lives(args["pid"], args["start_ticks"])
            reader.send_new()
            if asking.foreign:
                send({"foreign": asking.foreign})
                return
            if not alive:
                reader.send_new(last=True)
                deployed = record.read(args["deployment"], args["host"]) or {}
                ended: WatchReply = how_it_ended(args, own) if own else {"dead": True}
                send({"oom": oom.describe(deployed), **ended})
                return
            if asking.answered is not None:
                shared_memory.remember(args["deployment"], args["host"])
                deployed = record.update(args["deployment"], args["host"], lambda before: note_ready(before, args))
                note_in_history(deployed, args)
                if args.get("restart"):
                    restart_permits.of(args["deployment"], args["host"], **args["restart"]).permit()
                if own:
                    send({"ready": True, "at": asking.answered})
                else:
                    send({"ready": True, "token": asking.answered})
                return
            if isinstance(asking, EnginePoll) and asking.overdue:
                send({"untransferred": asking.why})
                return
            if time.monotonic() >= end:
                send({"timed_out": True, "why": asking.why})
                return
            select.select([], [], [], POLL_SECONDS)


def poll(args: WatchArguments) -> Union[program.ProgramPoll, EnginePoll, NoPoll]:
    """Return what finds out whether a process is ready; one without URL never is by itself."""
    own = args.get("program")
    if own:
        return program.ProgramPoll(args, own["addresses"])
    return EnginePoll(args) if args["url"] else NoPoll()


class NoPoll:
    """A process that answers nobody, such as a follower: it is watched until the operator has enough."""

    answered: Optional[str] = None
    why = "its group is not ready"
    foreign = ""


def note_ready(deployed: Record, args: WatchArguments) -> Record:
    """Note in the record that a server was ready once: its silence means something else than before."""
    for process in deployed.get("processes", []):
        if (process["pid"], process.get("start_ticks")) == (args["pid"], args["start_ticks"]):
            process["ready_at"] = time.time()
    return deployed


def note_in_history(deployed: Record, args: WatchArguments) -> None:
    """Note in the history which server is ready."""
    servers = [*deployed.get("instances", ()), *deployed.get("routers", ())]
    took = {} if args["start_ticks"] is None else {"took": age(args["start_ticks"])}
    scripts = {process["script"] for process in deployed.get("processes", ()) if process["pid"] == args["pid"]}
    for server in servers:
        if server["script"] in scripts and server["driver"] == args["host"]:
            run_id = deployed["change"]["run_id"] if "change" in deployed else deployed.get("run_id", "")
            history.note(args, "ready", server=server["name"], run_id=run_id, **took)


def how_it_ended(args: Target, own: WatchedProgram) -> WatchReply:
    """Return whether a program has done its work, or died."""
    status = program.exit_status(args["deployment"], args["host"])
    if status == 0 and not own["addresses"]:
        return {"finished": True}
    return {"dead": True, "exit_status": status}


class EnginePoll(threading.Thread):
    """Asks for health, then for a token, beside the loop that reads the log: a reply may take long.

    `foreign` tells who else has the engine's port, "" if nobody has.
    """

    def __init__(self, args: WatchArguments) -> None:
        super().__init__(daemon=True)
        self.answered: Optional[str] = None
        self.why = "the server does not listen yet"
        self.foreign = ""
        self._args = args
        self._asked = args["url"]
        self._healthy = False
        self._transfers = None  # type: Optional[Transfers]
        self.start()

    @property
    def overdue(self) -> bool:
        """Return whether pools behind this router should have worked together by now."""
        return self._transfers is not None and self._transfers.overdue

    def run(self) -> None:
        """Ask until there is a token."""
        client = openai.client(self._args["deployment"], self._args["host"])
        while self.answered is None:
            try:
                self._ask(client)
            except ForeignListenerError as error:
                self.foreign = str(error)
            except (OSError, ValueError) as error:
                self.why = "%s: %s" % (self._asked, error)
            time.sleep(POLL_SECONDS)

    def _ask(self, client: Client) -> None:
        url = self._asked = self._args["url"]
        status, _ = client.request(url + "/health", timeout=5)
        if status != 200:
            self.why = "%s/health answers %d" % (url, status)
            return
        if not self._healthy:
            self._healthy = True
            self.why = "/health is 200, but a one-token completion has no reply yet"
            send({"healthy": True})
            if "transfers" in self._args:
                self._transfers = Transfers(self._args)
        if self._transfers is not None:
            self._transfers.remember()
        asked = list(self._args.get("data_ranks", []))  # type: List[Optional[int]]
        for data_rank in asked or [None]:
            of = "" if data_rank is None else " of data-parallel rank %d" % data_rank
            self._asked = "/health is 200, but a one-token completion%s fails" % of
            ok, text = openai.one_token(client, url, self._args["model"], timeout=120, data_rank=data_rank)
            if not ok:
                self.why = "%s: %s" % (self._asked, text)
                return
        self.why = self._transfers.missing() if self._transfers is not None else ""
        if not self.why:
            self.answered = text


class Lines:
    """New whole lines of a growing file, each cut at 64 KiB.

    Of a file that grows faster than BYTES_PER_SECOND, more than BURST bytes at once are passed over but for the last.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._rest = b""
        self._allowed, self._looked_at = float(BURST), time.monotonic()

    def send_new(self, last: bool = False) -> None:
        """Send the lines that are new; with `last` also one that has no end."""
        now = time.monotonic()
        self._allowed = min(BURST, self._allowed + BYTES_PER_SECOND * (now - self._looked_at))
        self._looked_at = now
        self._pass_over()
        while True:
            data = self._file.read(READ_BYTES)
            self._allowed -= len(data)
            keep_rest = len(self._rest) < READ_BYTES and not (last and not data)
            lines, self._rest = split(self._rest + data, keep_rest)
            for at in range(0, len(lines), LINES_AT_ONCE):
                send({"lines": lines[at : at + LINES_AT_ONCE]})
            if not data or self._allowed <= (-BURST if last else 0):
                return

    def _pass_over(self) -> None:
        """Go on near the end of the file where there is more than may be sent."""
        at, size = self._file.tell(), os.fstat(self._file.fileno()).st_size
        if size - at > max(self._allowed, KEPT_BYTES):
            passed_over = size - KEPT_BYTES - at
            self._file.seek(passed_over, os.SEEK_CUR)
            self._rest = b""
            send({"lines": ["[%d bytes of the log are left out here: it grows too fast]" % passed_over]})


def split(data: bytes, keep_rest: bool) -> Tuple[List[str], bytes]:
    """Return whole lines, and what follows the last line end; a progress bar ends lines with a carriage return."""
    parts = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    rest = parts.pop() if keep_rest else b""
    return [part[:LONGEST_LINE].decode("utf-8", "replace") for part in parts if part.strip()], rest
