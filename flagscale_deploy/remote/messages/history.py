"""`history`: what became of a deployment on a host, the oldest event first, and what is kept of its runs."""

from __future__ import annotations

from typing import Literal

from flagscale_deploy.remote.messages.program import MIB, HostProgram, NoOrder, Target, TypedDict


class _HistoryEvent(TypedDict):
    schema: int  # 1
    deployment: str
    host: str
    event: Literal[
        "run", "ready", "stopped", "failed", "restarting", "restored", "waiting", "gave up",
        "updated", "put back", "update failed",
    ]  # fmt: skip
    server: str  # "" for what concerns all of this host
    reason: str
    time: float  # Unix time


class HistoryEvent(_HistoryEvent, total=False):
    """A line of `history.jsonl`: of a run and its end, or of a restart (`RestartEvent`)."""

    run_id: str
    by: str  # who began or stopped it
    argv: dict[str, list[str]]  # of a run: the command line of each server, without secrets
    attempt: int  # of a restart: how many in a row
    max: int
    took: float  # seconds, of an update (`ChangeEvent`); of `ready` since the process began
    evidence: str  # folder on the host, "" for none


class HistoryArguments(Target, total=False):
    """Of which deployment; with `run_id` what is kept of that run is sent, and no event."""

    run_id: str


class _HistoryReply(TypedDict):
    events: list[HistoryEvent]


class HistoryReply(_HistoryReply, total=False):
    """Some events, the oldest first; several messages."""

    kept: dict[str, str]  # with the last events: SHA-256 of what is kept of each run, by its id
    run: str  # what is kept of the run that was asked for, as JSON; its shape is that of `plan/kept.py`


HISTORY = HostProgram[HistoryArguments, HistoryReply, NoOrder]("history", message_bytes=4 * MIB)
