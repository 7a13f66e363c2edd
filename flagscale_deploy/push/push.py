"""Push a tree to hosts: compare, check the space, transfer, correct modes and links, and end all programs."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from threading import Event as Flag

from flagscale_deploy.errors import CheckError, Fault, HostsUnreachableError, RemoteError
from flagscale_deploy.events import Event, Sink, silent
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.network import address_problem, plan_networks
from flagscale_deploy.push.arguments import PushArguments, PushOptions, dest_of_file
from flagscale_deploy.push.members import Inbox, Member, ReadPiece
from flagscale_deploy.push.replies import facts_of, peers_of
from flagscale_deploy.push.report import (
    Differences,
    HostReport,
    PushReport,
    faults_of_paths,
    faults_of_space,
    notes_of,
    shown,
)
from flagscale_deploy.push.schedule import SOURCE
from flagscale_deploy.push.session import STAGE, Session
from flagscale_deploy.push.source import LocalSource, RemoteSource
from flagscale_deploy.push.transfer import Address, Transfer
from flagscale_deploy.remote.messages.program import Arguments, HostProgram
from flagscale_deploy.remote.messages.push import (
    PUSH_HOST,
    PUSH_SOURCE,
    PushFinish,
    PushHostArguments,
    PushOrder,
    PushReply,
    PushSourceArguments,
    PushTree,
)
from flagscale_deploy.remote.push.tree import bytes_of, from_wire, pieces, to_wire
from flagscale_deploy.remote.push.validate import without_outside
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.fleet import Fleet, answers, failures
from flagscale_deploy.transport.remote_program import Program

NO_TIMEOUT_SECONDS = 10 * 365 * 86400.0
END_SECONDS = 15.0


def push(
    fleet: Fleet,
    arguments: PushArguments,
    targets: Sequence[str],
    options: PushOptions = PushOptions(),
    say: Sink = silent,
) -> PushReport:
    """Make DEST on every target equal to the source; `fleet` has the targets, and the source's host if there is one.

    Raises InputError if the source cannot be read, CheckError before anything is sent if hosts lack space or DEST
    cannot be written, HostsUnreachableError if no host can be reached. The programs on hosts end in every case.
    """
    with _Push(fleet, arguments, targets, options, say).begun() as work:
        return work.run()


class _Push:
    """One push."""

    def __init__(
        self, fleet: Fleet, arguments: PushArguments, targets: Sequence[str], options: PushOptions, say: Sink
    ) -> None:
        self._fleet, self._arguments, self._options, self._say = fleet, arguments, options, say
        self._targets = [name for name in targets if not arguments.is_source(name)]
        self._dest = arguments.dest
        self._began = time.monotonic()
        self._inbox = Inbox()
        self._session = Session(self._inbox, arguments.host or "SRC", say)
        self._cancelled = Flag()
        self._token = secrets.token_hex(32)
        self._local: LocalSource | None = None
        self._remote = RemoteSource()
        self._networks: dict[str, Facts] = {}
        self._notes: tuple[str, ...] = ()

    @contextmanager
    def begun(self) -> Iterator[_Push]:
        """Scan a local source; afterwards end the programs on hosts."""
        try:
            if not self._arguments.host:
                self._local = LocalSource(self._arguments.path, self._inbox, self._options)
            yield self
        finally:
            self._cancelled.set()
            self._session.close()

    def run(self) -> PushReport:
        """Push; see `push`."""
        tree = self._open()
        before = self._compare(tree)
        report = self._report(tree, before)
        if self._options.check:
            self._end()
            return replace(report, failed=self._session.errors, check=True)
        transfer = self._send(tree)
        self._finish()
        hosts = {
            name: HostReport(before[name], transfer.progress[name].wanted)
            for name in report.hosts
            if name in transfer.progress and name not in self._session.failed
        }
        return replace(
            report,
            hosts=hosts,
            failed=self._session.errors,
            sent=transfer.sent,
            elapsed=time.monotonic() - self._began,
        )

    def _open(self) -> PushTree:
        """Start the programs, and return the tree to push."""
        self._say(Event(STAGE, "running", text=f"comparing with {counted(len(self._targets), 'host')}"))
        starts = {
            name: partial(self._start, name, PUSH_HOST, PushHostArguments(host=name, token=self._token))
            for name in self._targets
        }
        if self._arguments.host:
            starts[SOURCE] = partial(self._start, self._arguments.host, PUSH_SOURCE, self._sender())
        started = self._fleet.gather(starts)
        read_piece: ReadPiece = self._local.read if self._local else self._remote.read
        for name, program in answers(started).items():
            take_reply = None if name else self._remote.take_reply
            self._session.members[name] = Member(name, program, self._inbox, read_piece, take_reply)
        self._remote.member = self._session.members.get(SOURCE)
        for name, error in failures(started).items():
            self._session.fail(name, error)
        opened = self._session.collect({name: "network" if name else "tree" for name in self._session.members})
        self._networks = {name: facts_of(reply["network"]) for name, reply in opened.items() if "network" in reply}
        if not self._session.hosts and self._targets:
            raise HostsUnreachableError(list(self._session.failed.values()))
        self._require_source()
        if "refused" in opened.get(SOURCE, {}):
            raise RemoteError(
                self._arguments.host, f"{self._arguments.path} cannot be read: {opened[SOURCE]['refused']}"
            )
        tree = self._tree(self._local.tree if self._local is not None else opened[SOURCE]["tree"])
        self._session.validator.set_tree(tree)
        return tree

    def _tree(self, tree: PushTree) -> PushTree:
        """Return the tree to push; a single file gets its name at DEST."""
        self._notes = notes_of(tree, str(self._arguments), links_left_out=self._local is None)
        if self._local is None:
            tree = without_outside(tree)
        if not tree["entries"]:
            notes = "; ".join(self._notes)
            raise RemoteError(self._arguments.host, f"there is nothing in {self._arguments.path}", notes)
        if tree["single"]:
            (file,) = tree["entries"]
            self._dest = dest_of_file(self._dest, from_wire(file["path"]).decode(errors="surrogateescape"))
            name = os.path.basename(self._dest).encode(errors="surrogateescape")
            return {**tree, "entries": [{**file, "path": to_wire(name)}]}
        return tree

    def _compare(self, tree: PushTree) -> dict[str, Differences]:
        """Hash on both sides at once; return how each host differs. Raises CheckError if DEST cannot be used."""
        self._session.order({"look": {"dest": self._dest, "tree": tree, "checksum": self._options.checksum}})
        if self._local is not None:
            self._local.hash()
        else:
            self._session.members[SOURCE].order({"hash": True})
        hashed = self._session.collect({SOURCE: "digests", **dict.fromkeys(self._session.hosts, "looked")})
        self._require_source()
        if "refused" in hashed[SOURCE]:
            raise RemoteError(self._arguments.host or "SRC", str(hashed[SOURCE]["refused"]), "push again")
        self._refuse(hashed)
        self._session.order({"compare": hashed[SOURCE]["digests"]})
        compared = self._session.collect(dict.fromkeys(self._session.hosts, "missing"))
        self._refuse(compared)
        self._stop_at(faults_of_paths(compared))
        return {name: Differences.parse(reply) for name, reply in compared.items()}

    def _send(self, tree: PushTree) -> Transfer:
        self._session.order({"prepare": True})
        prepared = self._session.collect(dict.fromkeys(self._session.hosts, "have"))
        self._refuse(prepared)
        self._stop_at(faults_of_space(self._dest, prepared))
        self._remote.pieces = pieces([entry["size"] for entry in tree["entries"] if entry["kind"] == "file"])
        sizes = [bytes_of(piece) for piece in self._remote.pieces]
        have = {name: set(reply["have"]) for name, reply in prepared.items() if name in self._session.hosts}
        needed = any(len(present) < len(sizes) for present in have.values())
        transfer = Transfer(self._session, sizes, have, self._listen() if needed else {})
        if needed:
            self._say(Event(STAGE, "running", text="sending"))
            transfer.run()
        return transfer

    def _listen(self) -> dict[str, Address]:
        """Have every host listen on its data network; return the addresses of those that do."""
        hosts = {
            name or self._arguments.host: name for name in self._session.members if name not in self._session.failed
        }
        facts = {host: self._networks[name] for host, name in hosts.items()}
        networks, _ = plan_networks([self._fleet.hosts[host] for host in hosts], facts)
        problems = {host: address_problem(self._fleet.hosts[host], networks[host].node_ip) for host in hosts}
        for host in filter(problems.get, hosts):
            self._say(Event(STAGE, "note", host, f"{problems[host]}: other hosts get nothing from it"))
        addresses = {name: networks[host].node_ip for host, name in hosts.items() if not problems[host]}
        if {SOURCE, self._arguments.host} <= self._session.members.keys() and not problems[self._arguments.host]:
            addresses[SOURCE] = addresses[self._arguments.host] = networks[self._arguments.host].node_ip
        peers = {*addresses.values(), *chain.from_iterable(map(peers_of, facts.values()))}
        for name, address in addresses.items():
            self._session.members[name].order({"listen": address, "peers": sorted(peers)})
        replies = self._session.collect(dict.fromkeys(addresses, "port"))
        self._require_source()
        for name, reply in replies.items():
            if "port" not in reply:
                text = f"{reply['refused']}: other hosts get nothing from it"
                self._say(Event(STAGE, "note", name or self._arguments.host, text))
        return {name: (addresses[name], reply["port"]) for name, reply in replies.items() if "port" in reply}

    def _finish(self) -> None:
        """Correct links and modes, and end the programs; a host that still lacks a file has failed."""
        self._session.ending = True
        self._session.order({"finish": True})
        for name, reply in self._session.collect(dict.fromkeys(self._session.hosts, "finished")).items():
            finish: PushFinish = reply.get("finished", {})
            missing = finish.get("missing", [])
            if missing or "refused" in reply:
                lacks = f"it lacks {counted(len(missing), 'file')}" + (
                    f", such as {shown(missing[0])}" if missing else ""
                )
                self._session.fail(name, RemoteError(name, reply.get("refused") or lacks, "push again"))
        self._wait_for_ends()

    def _end(self) -> None:
        """End the programs before anything is sent; they leave nothing behind."""
        self._session.ending = True
        self._session.order({"leave": True})
        self._session.collect(dict.fromkeys(self._session.hosts, "finished"))
        self._wait_for_ends()

    def _wait_for_ends(self) -> None:
        if SOURCE in self._session.members:
            self._session.members[SOURCE].order({"finish": True})
        self._session.wait_for_ends(END_SECONDS)

    def _refuse(self, replies: Mapping[str, PushReply]) -> None:
        """End the push if a host refuses DEST. Raises CheckError."""
        faults = [
            Fault(name, f"{self._dest}: {reply['refused']}", "correct it, or leave the host out with --limit")
            for name, reply in replies.items()
            if "refused" in reply
        ]
        self._stop_at(faults)

    def _stop_at(self, faults: Sequence[Fault]) -> None:
        """End the push if there are faults. Raises CheckError."""
        if faults:
            self._end()
            raise CheckError(faults)

    def _require_source(self) -> None:
        """Raise the error of the source's host, if there is one."""
        if SOURCE in self._session.failed:
            raise self._session.failed[SOURCE]

    def _report(self, tree: PushTree, before: Mapping[str, Differences]) -> PushReport:
        files = [entry for entry in tree["entries"] if entry["kind"] == "file"]
        return PushReport(
            source=str(self._arguments),
            dest=self._dest,
            files=len(files),
            bytes=sum(file["size"] for file in files),
            hosts={name: HostReport(before[name]) for name in self._targets if name in before},
            failed={},
            sent=0,
            elapsed=time.monotonic() - self._began,
            notes=self._notes,
        )

    def _start(
        self, host: str, program: HostProgram[Arguments, PushReply, PushOrder], args: Arguments, *_: object
    ) -> Program[PushReply, PushOrder]:
        connection = self._fleet.connection(host)
        return Program(connection, program, args, timeout=NO_TIMEOUT_SECONDS, cancelled=self._cancelled, bounded=False)

    def _sender(self) -> PushSourceArguments:
        return {
            "host": self._arguments.host,
            "source": self._arguments.path,
            "token": self._token,
            "copy_links": self._options.copy_links,
            "checksum": self._options.checksum,
        }
