"""Lead a group of ranks: decide when all of them end, and when they start."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Sequence, Tuple, cast

from flagscale_deploy.remote.peers import PeerServer
from flagscale_deploy.remote.supervisor.channel import Channel
from flagscale_deploy.remote.supervisor.group import (
    FRESH_SECONDS,
    GIVE_UP_SECONDS,
    REPLY_SECONDS,
    RETRY_SECONDS,
    SILENT_SECONDS,
    Address,
    Clock,
    Group,
    checked,
    token_of,
)

if TYPE_CHECKING:
    from flagscale_deploy.remote.deployment.restart_permits import Files
    from flagscale_deploy.remote.handshake import Handshake
    from flagscale_deploy.remote.messages.group import Report, Wish

CONNECTIONS_OF_ONE = 4
"""Of each rank; all may come from one address."""
PAUSE_SECONDS = 0.05
"""Between an answer and the next: a member that reports without end takes no time from the server."""
ENDS_SECONDS = 10.0
"""How long a host that was cut off for the time after which it is lost takes to end its rank, SIGKILL included."""
_REPORT = {"generation": int, "state": str, "why": str, "spare": bool}


class Member:
    """What the leader knows of another host of the group."""

    def __init__(self, host: str, clock: Clock) -> None:
        self.host, self._clock = host, clock
        self.report: Optional[Report] = None
        self._heard_at = clock()
        self._connection: Optional[socket.socket] = None

    @property
    def silent(self) -> float:
        """Return for how many seconds it has sent nothing."""
        return self._clock() - self._heard_at

    @property
    def is_down(self) -> bool:
        """Return whether it has just reported that nothing of its server is left."""
        return self.report is not None and self.report["state"] == "down" and self.silent < FRESH_SECONDS

    @property
    def can_carry(self) -> bool:
        """Return whether it stands by, and has just reported that it can carry a rank."""
        return self.is_down and self.report is not None and self.report["spare"]

    @property
    def hindrance(self) -> str:
        """Return why a spare cannot carry a rank."""
        if self.silent >= FRESH_SECONDS or self.report is None:
            return "%s: silent %d s" % (self.host, self.silent // 5 * 5)
        return "%s: %s" % (self.host, self.report["why"] or "it is looked at")

    def wait_anew(self) -> None:
        """Count its silence from now on."""
        self._heard_at = self._clock()

    def attach(self, connection: socket.socket) -> None:
        """Take its reports over this connection, and end the one before: it has one."""
        before, self._connection = self._connection, connection
        if before is not None:
            with contextlib.suppress(OSError):
                before.shutdown(socket.SHUT_RDWR)

    def hear(self, report: Report) -> None:
        """Take its report."""
        self.report, self._heard_at = report, self._clock()


class Leader(Group):
    """The group, as the supervisor of its first rank sees it.

    `hosts` are those of its ranks, its own first, and behind them those of its spares (`keep_spares`).
    """

    several = True
    has_spares = False
    """Whether ranks of lost hosts are given to others, where there are any."""

    def __init__(
        self,
        hosts: Sequence[str],
        files: Files,
        lost: float,
        generation: int = 1,
        clock: Clock = time.monotonic,
    ) -> None:
        self._files, self._lost, self._clock = files, lost, clock
        self._names, self._carriers = hosts, list(range(len(hosts)))
        self._members = {number: Member(host, clock) for number, host in enumerate(hosts) if number}
        self._log: Callable[[str], None] = lambda _: None
        self._lock = threading.Lock()
        self.generation = generation
        self._run, self._why, self._hung = True, "", False
        self._listens = True
        self._numbers: Dict[bytes, int] = {}
        """The members by their tokens."""

    def keep_spares(self, ranks: int, hosts: Sequence[str]) -> None:
        """Let the hosts after the first `ranks` be spares; `hosts` are those of the ranks from an earlier boot."""
        self.has_spares, self._carriers = True, self._carriers[:ranks]
        if len(set(hosts) & set(self._names)) == len(hosts) == ranks and hosts[0] == self._names[0]:
            self._carriers = [self._names.index(host) for host in hosts]

    @property
    def hosts(self) -> Sequence[str]:
        """Return the hosts of its ranks."""
        return [self._names[number] for number in self._carriers]

    @property
    def _ranks(self) -> List[Tuple[int, Member]]:
        """Return the members that carry the other ranks, by rank."""
        return [(rank, self._members[number]) for rank, number in enumerate(self._carriers) if rank]

    @property
    def _spares(self) -> Dict[int, Member]:
        return {number: member for number, member in self._members.items() if number not in self._carriers}

    def listen(self, address: Address, token: bytes, peers: Sequence[str], log: Callable[[str], None]) -> None:
        """Answer the other supervisors from now on; log once why that is not possible, and try again.

        `token` is the group's, from which those of its members are made.

        Until then nobody counts as silent: whoever has taken the port would end a group that is well.
        """
        self._listens, self._log = False, log
        self._numbers = {token_of(token, number): number for number in self._members}
        of_one = CONNECTIONS_OF_ONE * len(self._members)

        def keep_trying() -> None:
            logged = False
            while True:
                try:
                    PeerServer(address[0], address[1], list(self._numbers), self._serve, peers, of_one=of_one)
                except OSError as error:
                    if not logged:
                        logged = True
                        log("%s, port %d: the group's other ranks cannot report" % (error, address[1]))
                    time.sleep(RETRY_SECONDS)
                else:
                    for member in self._members.values():
                        member.wait_anew()
                    self._listens = True
                    return

        threading.Thread(target=keep_trying, daemon=True).start()

    def answer(self, number: int, report: Report) -> Wish:
        """Take the report of a member, and return the answer."""
        member = self._members[number]
        with self._lock:
            rank = self._carriers.index(number) if number in self._carriers else 0
            member.hear(report)
            if not self._run:  # its own state may have been lost, with a full disk
                self.generation = max(self.generation, report["generation"] + 1)
            if report["state"] == "gave up" and rank:
                self.over = self.over or "rank %d on %s gave up: %s" % (rank, member.host, report["why"])
            return {
                "generation": self.generation,
                "rank": rank,
                "run": self._run and not self.over,
                "permitted": self._files.permitted,
                "why": self._why,
                "hung": self._hung,
                "over": self.over,
            }

    def problem(self) -> str:
        """Return which member has ended or is lost; "" before the group was ready once."""
        if not self._files.permitted:
            return ""
        for rank, member in self._ranks:
            report = member.report
            if member.silent > self._lost and self._listens:
                return "rank %d on %s is lost: silent for %.0f s" % (rank, member.host, member.silent)
            if report is not None and report["generation"] >= self.generation:
                if report["state"] != "running":
                    return "rank %d on %s %s" % (rank, member.host, report["why"])
                if report["generation"] > self.generation:
                    return "rank %d on %s belongs to a later start" % (rank, member.host)
        return ""

    def note_end(self, why: str, hung: bool = False) -> None:
        """Wish for the next generation, without starting it yet."""
        with self._lock:
            self.generation, self._run, self._why, self._hung = self.generation + 1, False, why, hung

    def missing(self) -> str:
        """Return which members are not there yet, or have not ended what they had, and what would help."""
        if self.has_spares and self._listens:
            self._move_ranks()
        late = [member for _, member in self._ranks if not member.is_down]
        texts = [
            "%s (silent %d s)" % (member.host, member.silent // 5 * 5)
            if member.silent >= FRESH_SECONDS
            else "%s to end its rank" % member.host
            for member in late
        ]
        return "waiting for %s" % "; ".join(filter(None, [", ".join(texts), self.remedy])) if texts else ""

    @property
    def remedy(self) -> str:
        """Return what a person can do about hosts that are gone, if no spare can take the place of one."""
        gone = [member.host for _, member in self._ranks if not member.is_down and self._is_gone(member)]
        why = "no other host is given its rank without deploy.restart.spare"
        if self.has_spares:
            why = "no spare can take its place (%s)" % "; ".join(spare.hindrance for spare in self._spares.values())
        return "%s: power %s on, or stop and run without it" % (why, " and ".join(gone)) if gone else ""

    def _is_gone(self, member: Member) -> bool:
        return member.silent > self._lost + ENDS_SECONDS

    def _move_ranks(self) -> None:
        """Give the ranks of hosts that are gone to spares that can carry them."""
        for rank, member in self._ranks:
            fit = [number for number, spare in self._spares.items() if spare.can_carry]
            if fit and self._is_gone(member):
                with self._lock:
                    self._carriers[rank] = fit[0]
                self._log("rank %d moves from %s to %s" % (rank, member.host, self._names[fit[0]]))

    def begin(self) -> None:
        """Let every member start the next generation."""
        with self._lock:
            self._run = True

    def give_up(self, why: str) -> None:
        """Wish that every member gives up."""
        with self._lock:
            self.over = why
        time.sleep(GIVE_UP_SECONDS if self._members else 0)

    def _serve(self, connection: socket.socket, handshake: Handshake) -> None:
        number, channel = self._numbers[handshake.token], Channel(connection, handshake.key, is_client=False)
        with self._lock:
            self._members[number].attach(connection)
        while True:
            report = cast("Report", checked(channel.receive(SILENT_SECONDS), _REPORT))
            channel.send(self.answer(number, report), REPLY_SECONDS)
            time.sleep(PAUSE_SECONDS)
