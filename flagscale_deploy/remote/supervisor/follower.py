"""Follow the leader of a group of ranks: report to it, and do what it wishes."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, List, Optional, Sequence, cast

from flagscale_deploy.remote.peers import connect_peer
from flagscale_deploy.remote.supervisor.channel import Channel
from flagscale_deploy.remote.supervisor.group import (
    FRESH_SECONDS,
    GIVE_UP_SECONDS,
    REPLY_SECONDS,
    REPORT_SECONDS,
    RETRY_SECONDS,
    Address,
    Clock,
    Group,
    checked,
    one_line,
)

if TYPE_CHECKING:
    from flagscale_deploy.remote.deployment.restart_permits import Files
    from flagscale_deploy.remote.messages.group import MemberState, Report, Wish
    from flagscale_deploy.remote.supervisor.spare import Spare

PERMISSION_SECONDS = 3.0
CLAIM_SECONDS = 5.0
"""Between two looks of a spare whether it can carry a rank, while its leader waits for one."""
_WISH = {"generation": int, "rank": int, "run": bool, "permitted": bool, "why": str, "hung": bool, "over": str}


class Follower(Group):
    """The group, as the supervisor of another rank sees it. `leader` is the host of its first rank."""

    leads, several = False, True

    def __init__(
        self, leader: str, files: Files, lost: float, generation: int = 1, clock: Clock = time.monotonic
    ) -> None:
        self._leader, self._files, self._lost, self._clock = leader, files, lost, clock
        self.generation = generation
        self._spare: Optional[Spare] = None
        self._holds, self._claimed, self._claims_at = False, False, 0.0
        self._state: MemberState = "running"
        self._why = ""
        self._wish: Optional[Wish] = None
        self._next: Optional[Wish] = None
        self._heard_at, self._refused = clock(), False
        self._changed = threading.Event()

    def keep_spare(self, spare: Spare, rank: int) -> None:
        """Let this host be one that may carry another rank than this one, which it starts first; 0: it stands by."""
        self._spare, self.rank, self._holds = spare, rank, bool(rank)
        self._state = self._state if rank else "spare"

    @property
    def stands_by(self) -> bool:
        """Return whether the leader has no rank for this host."""
        return self._spare is not None and not (self._wish["rank"] if self._wish else self.rank)

    def command(self, words: Sequence[str]) -> List[str]:
        """Return the command line of the rank that is started."""
        return self._spare.command(words, self.rank) if self._spare else list(words)

    def report_to(self, address: Address, token: bytes) -> None:
        """Report to the leader from now on, through all losses of the connection."""
        threading.Thread(target=self._keep_reporting, args=(address, token), daemon=True).start()

    @property
    def report(self) -> Report:
        """Return what the leader is told now."""
        return {
            "generation": self.generation,
            "state": "spare" if self.stands_by and self._state == "down" and not self._claimed else self._state,
            "why": self._why,
            "spare": self.stands_by,
        }

    def hear(self, wish: Wish) -> None:
        """Take the leader's answer; a permit to restart is good for this rank as well."""
        if wish["permitted"] and not self._files.permitted:
            with contextlib.suppress(OSError):
                self._files.permit()
        self._wish, self._heard_at, self._refused = wish, self._clock(), False
        self.over = wish["over"]
        self.hung = wish["hung"] and wish["generation"] > self.generation

    @property
    def _silent(self) -> float:
        return self._clock() - self._heard_at

    def problem(self) -> str:
        """Return why the leader wishes that the server ends, or that there is none; "" before it was ready once."""
        wish = self._wish
        if not self._files.permitted or wish is None:
            return ""
        if self._silent > self._lost:
            return "its group's leader on %s is lost: silent for %.0f s" % (self._leader, self._silent)
        if wish["over"] or wish["generation"] > self.generation:
            return "ends with its group: %s" % (wish["over"] or wish["why"])
        return ""

    def learn_permission(self) -> None:
        """Wait for an answer of the leader, if it has not permitted restarts yet."""
        deadline, heard_at = self._clock() + PERMISSION_SECONDS, self._heard_at
        self._changed.set()
        while not (self._files.permitted or self._files.forbidden) and self._heard_at == heard_at:
            if self._clock() >= deadline:
                break
            time.sleep(0.05)

    def note_end(self, why: str, hung: bool = False) -> None:  # noqa: ARG002 (the leader knows by itself)
        """Report that the server has ended."""
        self._tell("ended", why)

    def note_down(self) -> None:
        """Report that nothing of the server is left."""
        self._tell("down", self._why)

    def give_up(self, why: str) -> None:
        """Report that the server can't be started again."""
        self._tell("gave up", why)
        time.sleep(GIVE_UP_SECONDS)

    def missing(self) -> str:
        """Return what the leader waits for, or that it is not there."""
        wish = self._wish
        if wish is None or self._silent >= FRESH_SECONDS:
            why = ", its supervisor does not run" if self._refused else ""
            missing = "waiting for its group's leader on %s (silent %d s%s)" % (
                self._leader, self._silent // 5 * 5, why,
            )  # fmt: skip
            return "; ".join(filter(None, (missing, self.remedy)))
        if not wish["rank"]:
            return self._stand_by(wish)
        if wish["run"] and wish["generation"] > self.generation:
            unfit = self._unfit(wish["rank"])
            self._next = None if unfit else wish
            return unfit
        return "waiting for its group's leader on %s to start it" % self._leader

    @property
    def remedy(self) -> str:
        """Return what a person can do about a leader that is lost: no other host can take its place."""
        if self._silent <= self._lost:
            return ""
        if self._refused:
            return "stop and run again"
        return "power %s on, or stop and run without it" % self._leader

    def _stand_by(self, wish: Wish) -> str:
        """Find out whether this host could carry a rank, while the leader may look for one that can."""
        if wish["run"] or self._spare is None:
            if self._spare is not None:
                self._spare.release()
            self._holds, self._claimed, self._claims_at = False, False, 0.0
            self._tell("spare", "")
        else:
            self._claim(self._spare)
        return "stands by" + (": %s" % self._why if self._why else "")

    def _claim(self, spare: Spare) -> None:
        """Take the GPUs for a rank, or find out why that is not possible; look again every few seconds."""
        if self._clock() >= self._claims_at:
            why = spare.claim()
            self._holds = self._claimed = not why
            self._claims_at = self._clock() + CLAIM_SECONDS
            self._tell("spare" if why else "down", why)

    def _unfit(self, rank: int) -> str:
        """Return why this host cannot start a rank, "" if it can: its leader may wish for anything."""
        if self._spare is None:
            return ""
        if not self._holds:
            self._claim(self._spare)
        if self._holds and self._spare.has(rank):
            return ""
        why = "there is no such rank" if self._holds else self._why
        return "its group's leader on %s gives it rank %d: %s" % (self._leader, rank, why)

    def begin(self) -> None:
        """Belong to the generation that the leader has begun."""
        wish, self._next = self._next or (None if self._spare else self._wish), None
        if wish is not None:
            self.generation, self.rank, self.hung = wish["generation"], wish["rank"], False
        self._tell("running", "")

    def _tell(self, state: MemberState, why: str) -> None:
        before, self._state, self._why = (self._state, self._why), state, one_line(why)
        if before != (self._state, self._why):
            self._changed.set()

    def _keep_reporting(self, address: Address, token: bytes) -> None:
        while True:
            try:
                connection, key = connect_peer(address, token)
                with contextlib.closing(connection):
                    self._report(Channel(connection, key, is_client=True))
            except OSError as error:
                self._refused = isinstance(error, ConnectionRefusedError)
            time.sleep(RETRY_SECONDS)

    def _report(self, channel: Channel) -> None:
        """Report over one connection, until it is lost."""
        while True:
            self._changed.clear()
            channel.send(self.report, REPLY_SECONDS)
            self.hear(cast("Wish", checked(channel.receive(REPLY_SECONDS), _WISH)))
            self._changed.wait(REPORT_SECONDS)
