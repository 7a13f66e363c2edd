"""Waits on the driver host for an instance to be ready, and says everything it sees on the way.

main({deployment, host, pid, start_ticks, log, url, model, timeout}) answers {"lines": [...]} as the log grows,
{"healthy": true} once, and last one of {"ready": true, "token": text}, {"dead": true, "oom": text of `oom.py`},
{"timed_out": true, "why": text}. Ready is: the process lives, /health is 200, and a one-token completion came back. Its
process in the record then has `ready_at`.

With {restart: {run_id, script}} a server that was ready may be restarted from then on (`restart_state.py`).

With {program: {addresses}} it is a program of the user's own: ready as `engine/program.py` has it, which adds {"at":
address | ""}; {"finished": true} when it ended with status 0 and has no address to answer at; else {"dead": true,
"exit_status": n | None}.
"""

import select
import threading
import time
from typing import Any, BinaryIO, Dict, List, Optional, Tuple

from flagscale_deploy.remote.deployment import record, restart_state, shared_memory
from flagscale_deploy.remote.engine import openai, program
from flagscale_deploy.remote.system import oom
from flagscale_deploy.remote.system.proc import lives
from flagscale_deploy.remote.wire import lifeline_lost, say

POLL_SECONDS = 0.1
LINES_AT_ONCE = 500
READ_BYTES = 1 << 20


def main(args: Dict[str, Any]) -> None:
    end = time.monotonic() + args["timeout"]
    own = args.get("program")
    asking = program.Waiting(args) if own else Asking(args)  # type: Any
    with open(args["log"], "rb") as log:
        reader = Lines(log)
        while not lifeline_lost():
            alive = lives(args["pid"], args["start_ticks"])
            reader.say_new()
            if not alive:
                reader.say_new(last=True)
                known = record.read(args["deployment"], args["host"]) or {}
                say(oom=oom.said(known), **(how_it_ended(args) if own else {"dead": True}))
                return
            if asking.answered is not None:
                shared_memory.remember(args["deployment"], args["host"])
                record.update(args["deployment"], args["host"], lambda known: note_ready(known, args))
                if args.get("restart"):
                    restart_state.of(args["deployment"], args["host"], **args["restart"]).permit()
                say(ready=True, **{"at" if own else "token": asking.answered})
                return
            if time.monotonic() >= end:
                say(timed_out=True, why=asking.why)
                return
            select.select([], [], [], POLL_SECONDS)


def note_ready(known: Dict[str, Any], args: Dict[str, Any]) -> None:
    """Of a server that was ready once, silence means something else than of one that starts."""
    for process in known.get("processes", []):
        if (process["pid"], process.get("start_ticks")) == (args["pid"], args["start_ticks"]):
            process["ready_at"] = time.time()


def how_it_ended(args: Dict[str, Any]) -> Dict[str, Any]:
    """Of a program: whether it has done its work, or died."""
    status = program.exit_status(args["deployment"], args["host"])
    if status == 0 and not args["program"]["addresses"]:
        return {"finished": True}
    return {"dead": True, "exit_status": status}


class Asking(threading.Thread):
    """Asks for health, then for a token, beside the loop that reads the log: an answer may take long."""

    def __init__(self, args: Dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.answered = None  # type: Optional[str]
        self.why = "the server does not listen yet"
        self._args = args
        self._healthy = False
        self.start()

    def run(self) -> None:
        key = openai.api_key(self._args["deployment"], self._args["host"])
        while self.answered is None:
            try:
                self._ask(key)
            except (OSError, ValueError) as error:
                self.why = "%s: %s" % (self._args["url"], error)
            time.sleep(POLL_SECONDS)

    def _ask(self, key: Optional[str]) -> None:
        url = self._args["url"]
        status, _ = openai.request(url + "/health", key=key, timeout=5)
        if status != 200:
            self.why = "%s/health answers %d" % (url, status)
            return
        if not self._healthy:
            self._healthy = True
            say(healthy=True)
        ok, text = openai.one_token(url, self._args["model"], key, timeout=120)
        if ok:
            self.answered = text
        else:
            self.why = "/health is 200, but a one-token completion fails: %s" % text


class Lines:
    """New whole lines of a growing file; one that does not end in 1 MiB is cut there."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rest = b""

    def say_new(self, last: bool = False) -> None:
        while True:
            data = self._file.read(READ_BYTES)
            keep_rest = len(self._rest) < READ_BYTES and not (last and not data)
            lines, self._rest = split(self._rest + data, keep_rest)
            for at in range(0, len(lines), LINES_AT_ONCE):
                say(lines=lines[at : at + LINES_AT_ONCE])
            if not data:
                return


def split(data: bytes, keep_rest: bool) -> Tuple[List[str], bytes]:
    """Whole lines, and what follows the last line end. A carriage return ends a line too: progress bars use it."""
    parts = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    rest = parts.pop() if keep_rest else b""
    return [part.decode("utf-8", "replace") for part in parts if part.strip()], rest
