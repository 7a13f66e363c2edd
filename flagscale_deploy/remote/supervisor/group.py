"""Restart the ranks of a group as a whole: their supervisors agree on which of its starts is the current one.

The starts are counted: a generation. The driver's supervisor leads (`leader.py`); the others (`follower.py`) send it a
report once a second, and its answer is what they are to do (`remote/messages/group.py`), so a message that is lost is
made up for by the next. When a member ends or is silent for too long, the leader wishes for the next generation; every
member ends what it has of the one before, and when all of them have, the leader starts it. A member that hears nothing
of its leader for as long ends its server as well: nobody knows what became of the others. Nothing is started before
every rank has a member again, so there is no need for another leader: clients and ranks know the driver's address,
which no other host can take over.

A member without a rank is a spare. The leader gives it the rank of a host that is lost, between two generations, and
only when that host has had the time to end its own. A host that comes back after that finds that it is the spare.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from flagscale_deploy.remote.system import json_files

if TYPE_CHECKING:
    from pathlib import Path

    from flagscale_deploy.remote.supervisor.health import Lifetime

REPORT_SECONDS, REPLY_SECONDS, SILENT_SECONDS = 1.0, 5.0, 10.0
"""Between two reports; for an answer; after which a connection without a report is closed."""
FRESH_SECONDS = 5.0
"""What was heard longer ago is no ground to start anything on."""
RETRY_SECONDS = 1.0
GIVE_UP_SECONDS = 3.0
"""How long one that gives up stays, for the others to hear of it."""
LONGEST_REASON = 300
MOST_GENERATIONS = 1 << 31
Clock = Callable[[], float]
Address = Tuple[str, int]


class Group:
    """The group of a server, as its supervisor sees it. This one has no other member."""

    leads = True
    """Whether this supervisor counts the restarts, and decides on them."""
    generation = 1
    several = False
    """Whether it has other members."""
    hung = False
    """Whether the group ends since another member hangs: there is evidence to be kept first."""
    over = ""
    """Why the group is given up; "" while it is not."""
    rank = 0
    """Which of its ranks this supervisor starts."""

    @property
    def hosts(self) -> Sequence[str]:
        """Return the hosts of its ranks in rank order, where this one knows them."""
        return ()

    @property
    def stands_by(self) -> bool:
        """Return whether this is a spare: it starts nothing."""
        return False

    def command(self, words: Sequence[str]) -> List[str]:
        """Return the command line of the rank that is started, from the script's."""
        return list(words)

    def new_script(self) -> Optional[Path]:
        """Return the script that the next start has to be made with; None: the command line at hand does."""
        return None

    def start(self, lifetime: Lifetime) -> None:
        """Take no notice of a new run of the server: `begin` has told the others."""

    def end(self) -> None:
        """Take no notice of its end: `note_end` tells the others."""

    def problem(self) -> str:
        """Return why the server is to be ended though it runs; "" while it is not."""
        return ""

    def learn_permission(self) -> None:
        """Wait until it is sure whether the group may be restarted, a few seconds at most."""

    def note_end(self, why: str, hung: bool = False) -> None:
        """Tell the others that the server has ended, or is to be: so is the group. `hung`: it hangs."""

    def note_down(self) -> None:
        """Tell the others that nothing of the server is left."""

    def missing(self) -> str:
        """Return what the next start waits for; "" if nothing."""
        return ""

    @property
    def remedy(self) -> str:
        """Return what a person can do, where the next start waits for nothing else; else ""."""
        return ""

    @property
    def excuses_end(self) -> bool:
        """Return whether the server has ended for want of something else: that is no restart of its own."""
        return False

    def look(self) -> None:
        """Look at what excuses an end, while the server runs."""

    def is_another(self, raylet: int) -> bool:  # noqa: ARG002 (a worker's Ray node alone has a head)
        """Return whether a Ray node has joined another head: its restarts count anew."""
        return False

    def begin(self) -> None:
        """Begin the next generation: the server is started right after."""

    def give_up(self, why: str) -> None:
        """Tell the others that the group is given up, and wait until those that can be reached know."""


def token_of(group: bytes, rank: int) -> bytes:
    """Return the token by which a rank proves to its leader which one it is; the leader's (rank 0) is the group's own.

    So no host can speak for a rank on another one, nor in a group that it has no rank of.
    """
    return hmac.new(group, b"rank %d" % rank, "sha256").hexdigest().encode() if rank else group


def checked(message: Mapping[str, object], shape: Mapping[str, type]) -> Dict[str, object]:
    """Return another host's message with what the shape has, each text as one line. Raises OSError for another form.

    Its generation becomes ours, and stands in what the operator is told of this host.
    """
    if json_files.mismatch(message, shape) or not shape.keys() <= message.keys():
        raise OSError("the message has another form")
    generation = message["generation"]
    if not isinstance(generation, int) or not 0 <= generation <= MOST_GENERATIONS:
        raise OSError("no group was started so often")
    return {key: one_line(message[key]) if shape[key] is str else message[key] for key in shape}


def one_line(text: object) -> str:
    """Return the beginning of another host's text, as one line without control characters."""
    words = " ".join(str(text)[: 4 * LONGEST_REASON].split())[:LONGEST_REASON]
    return "".join(char if char.isprintable() else "?" for char in words)
