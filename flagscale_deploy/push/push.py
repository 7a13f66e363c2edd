"""Pushes: look everywhere at the same time, compare, see that there is room, send, put in order, prove it is over."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from threading import Event as Flag

from flagscale_deploy.errors import CheckError, Fault, HostsUnreachableError, RemoteError
from flagscale_deploy.events import Event, Sink, silent
from flagscale_deploy.facts.model import Facts, parse_interfaces
from flagscale_deploy.plan.network import plan_networks
from flagscale_deploy.push.arguments import PushArguments, dest_of_file
from flagscale_deploy.push.members import Inbox, Member, Read
from flagscale_deploy.push.report import Differences, HostReport, PushReport, shown
from flagscale_deploy.push.schedule import SOURCE
from flagscale_deploy.push.session import STAGE, Talk
from flagscale_deploy.push.source import Here, There
from flagscale_deploy.push.transfer import Place, Transfer
from flagscale_deploy.remote.messages.program import Arguments, HostProgram
from flagscale_deploy.remote.messages.push import (
    PUSH_HOST,
    PUSH_SOURCE,
    PushFinish,
    PushHostArguments,
    PushNetwork,
    PushOrder,
    PushReply,
    PushSourceArguments,
    PushTree,
)
from flagscale_deploy.remote.push.tree import bytes_of, from_wire, pieces, to_wire
from flagscale_deploy.support.units import format_size
from flagscale_deploy.transport.fleet import Fleet, answers, failures
from flagscale_deploy.transport.remote_program import Program

FOREVER_SECONDS = 10 * 365 * 86400.0
END_SECONDS = 15.0


@dataclass(frozen=True)
class Choices:
    """How to go about it: only compare; hash again what was hashed before; what links lead to in their place."""

    check: bool = False
    checksum: bool = False
    copy_links: bool = False


def push(
    fleet: Fleet, words: PushArguments, targets: Sequence[str], choices: Choices = Choices(), say: Sink = silent
) -> PushReport:
    """Make DEST on every target what the source is. `fleet` has them, and the source's host if it is on one.

    Raises InputError where the source can't be read, CheckError with nothing sent where hosts have no room or DEST
    can't be written, HostsUnreachableError where none can be reached. Whatever happens, the programs on hosts end.
    """
    with _Push(fleet, words, targets, choices, say).begun() as work:
        return work.do()


class _Push:
    def __init__(self, fleet: Fleet, words: PushArguments, targets: Sequence[str], choices: Choices, say: Sink) -> None:
        self._fleet, self._words, self._choices, self._say = fleet, words, choices, say
        self._targets = [name for name in targets if not words.is_source(name)]
        self._dest = words.dest
        self._began = time.monotonic()
        self._inbox = Inbox()
        self._talk = Talk(self._inbox, words.host or "SRC", say)
        self._cancelled = Flag()
        self._token = secrets.token_hex(32)
        self._here: Here | None = None
        self._there = There()
        self._networks: dict[str, PushNetwork] = {}

    @contextmanager
    def begun(self) -> Iterator[_Push]:
        """With the programs on hosts, which are gone afterwards."""
        try:
            if not self._words.host:
                each = self._choices
                self._here = Here(self._words.path, self._inbox, copy_links=each.copy_links, checksum=each.checksum)
            yield self
        finally:
            self._cancelled.set()
            self._talk.close()

    def do(self) -> PushReport:
        """All of it; see `push`."""
        tree = self._open()
        before = self._compare(tree)
        report = self._report(tree, before)
        if self._choices.check:
            self._end()
            return replace(report, failed=dict(self._talk.failed), check=True)
        transfer = self._send(tree)
        self._finish()
        hosts = {
            name: HostReport(before[name], transfer.progress[name].wanted)
            for name in report.hosts
            if name in transfer.progress and name not in self._talk.failed
        }
        return replace(
            report,
            hosts=hosts,
            failed=dict(self._talk.failed),
            sent=transfer.sent,
            elapsed=time.monotonic() - self._began,
        )

    def _open(self) -> PushTree:
        """Start the programs, and learn what there is to push."""
        self._say(Event(STAGE, "running", text=f"looking at {len(self._targets)} hosts"))
        starts = {name: partial(self._start, name, PUSH_HOST, self._receiver(name)) for name in self._targets}
        if self._words.host:
            starts[SOURCE] = partial(self._start, self._words.host, PUSH_SOURCE, self._sender())
        started = self._fleet.gather(starts)
        read: Read = self._here.read if self._here else self._there.read
        for name, program in answers(started).items():
            hear = None if name else self._there.hear
            self._talk.members[name] = Member(name, program, self._inbox, read, hear)
        self._there.member = self._talk.members.get(SOURCE)
        for name, error in failures(started).items():
            self._talk.fail(name, error)
        opened = self._talk.collect({name: "network" if name else "tree" for name in self._talk.members})
        self._networks = {name: each["network"] for name, each in opened.items() if "network" in each}
        if not self._talk.hosts and self._targets:
            raise HostsUnreachableError(list(self._talk.failed.values()))
        self._source_must_live()
        if "refused" in opened.get(SOURCE, {}):
            raise RemoteError(self._words.host, f"{self._words.path} cannot be read: {opened[SOURCE]['refused']}")
        return self._tree(self._here.tree if self._here is not None else opened[SOURCE]["tree"])

    def _tree(self, tree: PushTree) -> PushTree:
        """What there is, under the name that it gets."""
        if not tree["entries"]:
            raise RemoteError(self._words.host, f"there is nothing in {self._words.path}")
        if tree["single"]:
            (file,) = tree["entries"]
            self._dest = dest_of_file(self._dest, from_wire(file["path"]).decode(errors="surrogateescape"))
            name = os.path.basename(self._dest).encode(errors="surrogateescape")
            return {**tree, "entries": [{**file, "path": to_wire(name)}]}
        return tree

    def _compare(self, tree: PushTree) -> dict[str, Differences]:
        """Hash on both sides at the same time; how each host differs. Raises CheckError where DEST can't be used."""
        self._talk.tell({"look": {"dest": self._dest, "tree": tree, "checksum": self._choices.checksum}})
        if self._here is not None:
            self._here.hash()
        else:
            self._talk.members[SOURCE].order({"hash": True})
        found = self._talk.collect({SOURCE: "digests", **dict.fromkeys(self._talk.hosts, "looked")})
        self._source_must_live()
        if "refused" in found[SOURCE]:
            raise RemoteError(self._words.host or "SRC", str(found[SOURCE]["refused"]), "push again")
        self._refuse(found)
        self._talk.tell({"compare": found[SOURCE]["digests"]})
        compared = self._talk.collect(dict.fromkeys(self._talk.hosts, "missing"))
        blocked = [
            Fault(name, f"{shown(path)} is a directory there, or a file in the place of one", "move it away")
            for name, each in compared.items()
            for path in each["blocked"]
        ]
        self._stop_at(blocked)
        return {name: Differences.parse(each) for name, each in compared.items()}

    def _send(self, tree: PushTree) -> Transfer:
        self._talk.tell({"prepare": True})
        prepared = self._talk.collect(dict.fromkeys(self._talk.hosts, "have"))
        self._refuse(prepared)
        self._stop_at(
            [
                Fault(
                    name,
                    f"{self._dest} needs {format_size(each['needed'])}, and {format_size(each['free'])} are free",
                    "free some, or leave the host out with --limit",
                )
                for name, each in prepared.items()
                if each["needed"] > each["free"]
            ]
        )
        self._there.pieces = pieces([each["size"] for each in tree["entries"] if each["kind"] == "file"])
        sizes = [bytes_of(piece) for piece in self._there.pieces]
        numbers = range(len(sizes))
        have = {
            name: {piece for piece in each["have"] if piece in numbers}
            for name, each in prepared.items()
            if name in self._talk.hosts
        }
        needed = any(len(each) < len(sizes) for each in have.values())
        transfer = Transfer(self._talk, sizes, have, self._listen() if needed else {})
        if needed:
            self._say(Event(STAGE, "running", text="sending"))
            transfer.run()
        return transfer

    def _listen(self) -> dict[str, Place]:
        """Have every host listen on its data network; where it can be called."""
        hosts = {name or self._words.host: name for name in self._talk.members if name not in self._talk.failed}
        facts = {host: _facts(self._networks[name]) for host, name in hosts.items()}
        networks, _ = plan_networks([self._fleet.hosts[host] for host in hosts], facts)
        called = {name: networks[host].node_ip for host, name in hosts.items()}
        if SOURCE in self._talk.members and self._words.host in self._talk.members:
            called[SOURCE] = called[self._words.host] = networks[self._words.host].node_ip
        for name, address in called.items():
            self._talk.members[name].order({"listen": address})
        answered = self._talk.collect(dict.fromkeys(called, "port"))
        for name, each in answered.items():
            if "port" not in each:
                self._say(Event(STAGE, "note", name or self._words.host, f"{each['refused']}: it passes nothing on"))
        return {name: (called[name], int(each["port"])) for name, each in answered.items() if "port" in each}

    def _finish(self) -> None:
        """Links, modes, and the end of the programs. A host that misses a file after all has failed."""
        self._talk.ending = True
        self._talk.tell({"finish": True})
        for name, each in self._talk.collect(dict.fromkeys(self._talk.hosts, "finished")).items():
            finish: PushFinish = each.get("finished", {})
            missing = finish.get("missing", [])
            if missing or "refused" in each:
                what = each.get("refused") or f"{len(missing)} files are not there, as {shown(missing[0])}"
                self._talk.fail(name, RemoteError(name, str(what), "push again"))
        self._wait_for_ends()

    def _end(self) -> None:
        """Nothing was sent, and nothing stays."""
        self._talk.ending = True
        self._talk.tell({"leave": True})
        self._talk.collect(dict.fromkeys(self._talk.hosts, "finished"))
        self._wait_for_ends()

    def _wait_for_ends(self) -> None:
        if SOURCE in self._talk.members:
            self._talk.members[SOURCE].order({"finish": True})
        self._talk.wait_for_ends(END_SECONDS)

    def _refuse(self, answered: Mapping[str, PushReply]) -> None:
        faults = [
            Fault(name, f"{self._dest}: {each['refused']}", "mend it, or leave the host out with --limit")
            for name, each in answered.items()
            if "refused" in each
        ]
        self._stop_at(faults)

    def _stop_at(self, faults: Sequence[Fault]) -> None:
        if faults:
            self._end()
            raise CheckError(faults)

    def _source_must_live(self) -> None:
        if SOURCE in self._talk.failed:
            raise self._talk.failed[SOURCE]

    def _report(self, tree: PushTree, before: Mapping[str, Differences]) -> PushReport:
        files = [each for each in tree["entries"] if each["kind"] == "file"]
        notes = [f"left out, because it is no file: {shown(path)}" for path in tree["left_out"]]
        if tree["outside"]:
            some = ", ".join(map(shown, tree["outside"][:3])) + (", …" if len(tree["outside"]) > 3 else "")
            notes.append(f"links that lead out of {self._words}: {some}; --copy-links sends what they lead to instead")
        return PushReport(
            source=str(self._words),
            dest=self._dest,
            files=len(files),
            bytes=sum(each["size"] for each in files),
            hosts={name: HostReport(before[name]) for name in self._targets if name in before},
            failed={},
            sent=0,
            elapsed=time.monotonic() - self._began,
            notes=tuple(notes),
        )

    def _start(
        self, host: str, program: HostProgram[Arguments, PushReply, PushOrder], args: Arguments, *_: object
    ) -> Program[PushReply, PushOrder]:
        connection = self._fleet.connection(host)
        return Program(connection, program, args, timeout=FOREVER_SECONDS, cancelled=self._cancelled, bounded=False)

    def _receiver(self, name: str) -> PushHostArguments:
        return {"host": name, "token": self._token}

    def _sender(self) -> PushSourceArguments:
        return {
            "host": self._words.host,
            "source": self._words.path,
            "token": self._token,
            "copy_links": self._choices.copy_links,
            "checksum": self._choices.checksum,
        }


def _facts(network: PushNetwork) -> Facts:
    return Facts(interfaces=parse_interfaces(network["interfaces"]), default_address=network["default_address"])
