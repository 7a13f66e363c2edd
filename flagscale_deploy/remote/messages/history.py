"""`history`: what became of a deployment on a host, the oldest event first."""

from __future__ import annotations

from typing import Literal

from flagscale_deploy.remote.messages.program import MIB, HostProgram, NoOrder, Target, TypedDict


class _HistoryEvent(TypedDict):
    schema: int  # 1
    deployment: str
    host: str
    event: Literal["run", "ready", "stopped", "failed", "restarting", "restored", "gave up"]
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
    evidence: str  # folder on the host, "" for none


class HistoryReply(TypedDict):
    """Some events, the oldest first; several messages."""

    events: list[HistoryEvent]


HISTORY = HostProgram[Target, HistoryReply, NoOrder]("history", message_bytes=2 * MIB)
