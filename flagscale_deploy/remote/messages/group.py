"""What the supervisors of a group's ranks send each other (`remote/supervisor/group.py`)."""

from __future__ import annotations

from typing import Literal

from flagscale_deploy.remote.messages.program import TypedDict

MemberState = Literal["running", "ended", "down", "spare", "gave up"]


class Report(TypedDict):
    """From a follower's supervisor, once a second and at each change. Of which rank, the handshake has proved."""

    generation: int  # the start of the group that its server belongs to, counted from 1
    state: MemberState  # "ended": by itself or in part; "down": nothing of it is left, and it could start
    why: str  # how it ended; of a spare why it cannot carry a rank, "" where it was not asked yet
    spare: bool  # it stands by: its leader has no rank for it


class Wish(TypedDict):
    """The leader's answer to each report: what each member is to do."""

    generation: int
    rank: int  # which one it carries in that generation; 0: none, it stands by
    run: bool  # False: end what belongs to an earlier generation, and wait
    permitted: bool  # the group was ready once, and was not stopped
    why: str  # why an earlier generation ends
    hung: bool  # it hangs: evidence is kept before it is ended
    over: str  # why the group is given up; "" while it is not
