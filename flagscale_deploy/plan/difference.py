"""Tell what differs between what runs and what a plan would run: for each server, and for the Ray cluster. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest

from flagscale_deploy.config.gate import KEY_VARIABLE
from flagscale_deploy.plan.entrances import FRONTS, GATE
from flagscale_deploy.plan.gate_turn import REASONS, gate_turn, moved_clients
from flagscale_deploy.plan.kept import KeptRank, KeptRun, KeptServer
from flagscale_deploy.plan.ray_change import may_use, ray_change
from flagscale_deploy.plan.server_change import Difference, Kind, ServerChange, arrow, shown

MOST_REASONS = 100
"""Reasons of a server that are told. A host may keep thousands of servers, which differ in thousands of files."""
MOST_SECRETS = 500
"""Secrets of one owner that are compared."""
_MODEL = "model"
_HOST_SETTINGS = ("python", "venv", "container", "before_start")
_OTHER_SCRIPT = "its script: before_start, deploy.restart, a template, or this tool's version"
_OTHER_SERVERS = "the servers behind it"
_OTHER_SETTINGS = "its servers, paths or limits"
_SERVERS, _TRUST = "--worker-urls", "SSL_CERT_FILE"


def difference(
    running: KeptRun, planned: KeptRun, *, secrets_differ: bool = False, keys_differ: bool = False
) -> Difference:
    """Return what would change if what runs became what is planned.

    `secrets_differ` says that a secret of servers has another value, `keys_differ` that a key of the gate has; of which
    name is not known.
    """
    ray = ray_change(running, planned)
    pair = _Pair(running, planned, secrets_differ, keys_differ, ray.vacated)
    before = {server["name"]: server for server in running["servers"]}
    after = {server["name"]: server for server in planned["servers"]}
    servers = [pair.change(before.get(name), server) for name, server in after.items()]
    gone = [pair.moved(server, "removed") for name, server in before.items() if name not in after]
    return Difference(running["run_id"], (*servers, *gone), ray.whole, nodes=ray.nodes)


@dataclass(frozen=True)
class _Pair:
    """The two runs, for what concerns more than one server."""

    running: KeptRun
    planned: KeptRun
    secrets_differ: bool
    keys_differ: bool
    vacated: tuple[str, ...]
    """Hosts whose Ray nodes leave or restart."""

    def change(self, before: KeptServer | None, after: KeptServer) -> ServerChange:
        if before is None:
            return self.moved(after, "added")
        if after["engine"] in FRONTS:
            return self._front_change(before, after)
        places = tuple(_places(before, after))
        reasons = _first_reasons(chain(places, self._gate_reasons, self._of_server(before, after)))
        if not reasons and _scripts(before) != _scripts(after):
            reasons = (_OTHER_SCRIPT,)
        if not reasons and may_use(before, self.vacated):
            reasons = (f"Ray leaves or restarts on {', '.join(map(shown, self.vacated))}",)
        kind: Kind = "moved" if places else "restarted" if reasons else "unchanged"
        return ServerChange(after["name"], kind, reasons, _hosts(after))

    def moved(self, server: KeptServer, kind: Kind) -> ServerChange:
        """Return that a server comes or goes; with a gate, clients do."""
        reasons = moved_clients(self.running, self.planned) if server["name"] == GATE else ()
        return ServerChange(server["name"], kind, reasons, _hosts(server))

    @cached_property
    def _gate_reasons(self) -> tuple[str, ...]:
        """Return why every server has to start again where a gate comes or goes."""
        turn = gate_turn(self.running, self.planned)
        return () if turn is None else (REASONS[turn],)

    def _front_change(self, before: KeptServer, after: KeptServer) -> ServerChange:
        """Return what would become of a router or the gate, which take other servers and settings while they run.

        Variables and secrets are those of all servers: they take effect when it starts next.
        """
        hosts, places = _hosts(after), tuple(_places(before, after))
        flags, env, ports = (
            [text for old, new in zip(before["ranks"], after["ranks"], strict=False) for text in differ(old, new)]
            for differ in (_flags, _env, _ports)
        )
        start = [*self._gate_reasons, *(text for text in (*flags, *ports) if _SERVERS not in text)]
        start += [text for text in env if _TRUST in text]
        if after["engine"] != GATE:  # which reads a new one while it runs
            start += self._of_certificates(after, hosts)
        if places or start:
            kind: Kind = "moved" if places else "restarted"
            return ServerChange(after["name"], kind, _first_reasons((*places, *start)), hosts)
        later = [*env, *chain.from_iterable(self._of_hosts.get(host, ()) for host in hosts)]
        later += self._secrets(dict.fromkeys(hosts)) if after["engine"] != GATE else self._keys()
        if flags:
            later.append(_OTHER_SERVERS)
        elif not later and _scripts(before) != _scripts(after):
            later.append(_OTHER_SETTINGS if after["engine"] == GATE else _OTHER_SCRIPT)
        return ServerChange(after["name"], "reloaded" if later else "unchanged", _first_reasons(later), hosts)

    def _of_server(self, before: KeptServer, after: KeptServer) -> Iterator[str]:
        """Yield why a server has to start again where it is."""
        if before["engine"] != after["engine"]:
            yield arrow("engine", before["engine"], after["engine"])
        for old, new in zip_longest(before["ranks"], after["ranks"]):
            if old is not None and new is not None:
                yield from _flags(old, new)
                yield from _env(old, new)
                yield from _ports(old, new)
        hosts = dict.fromkeys(rank["host"] for rank in after["ranks"])
        for host in hosts:
            yield from self._of_hosts.get(host, ())
        yield from self._secrets(hosts)
        yield from self._of_certificates(after, hosts)
        if after["engine"] == "program":
            yield from self._files

    @cached_property
    def _files(self) -> tuple[str, ...]:
        """Return what differs of a user's own program."""
        return _first_reasons(text for _, text in _changed("file", self.running["program"], self.planned["program"]))

    def _of_certificates(self, server: KeptServer, hosts: Iterable[str]) -> Iterator[str]:
        if any(_serves_tls(rank) for rank in server["ranks"]):
            for host in ("", *hosts):
                yield from self._certificates.get(host, ())

    @cached_property
    def _certificates(self) -> Mapping[str, Sequence[str]]:
        """Return by host which certificates differ, "" for those that are sent to all."""
        texts: dict[str, list[str]] = {}
        for host, text in _changed("certificate", self.running["tls"], self.planned["tls"]):
            texts.setdefault(host, []).append(text)
        return texts

    @cached_property
    def _of_hosts(self) -> Mapping[str, Sequence[str]]:
        """Return what differs about each host itself, by its versions and settings."""
        settings = [{host["name"]: host for host in reversed(run["hosts"])} for run in (self.running, self.planned)]
        hosts = dict.fromkeys((*self.planned["versions"], *settings[1]))
        return {host: _first_reasons(self._of_host(host, *(of.get(host, {}) for of in settings))) for host in hosts}

    def _of_host(self, host: str, *settings: Mapping[str, object]) -> Iterator[str]:
        """Yield what differs about a host; `settings` are those before and after."""
        old, new = (run["versions"].get(host, {}) for run in (self.running, self.planned))
        host = shown(host)
        if old and new:
            yield from (
                f"{arrow(name, old.get(name), new.get(name))} on {host}"
                for name in dict.fromkeys((*old, *new))
                if old.get(name) != new.get(name)
            )
        for name in _HOST_SETTINGS if all(settings) else ():
            values = [setting.get(name) for setting in settings]
            if values[0] != values[1]:
                yield f"{arrow(name, *values)} on {host}" if name != "before_start" else f"before_start of {host}"

    def _keys(self) -> Iterator[str]:
        """Yield what differs about the keys of the gate."""
        return self._named(("gate",), "key", differ=self.keys_differ)

    def _secrets(self, hosts: Mapping[str, None]) -> Iterator[str]:
        """Yield what differs about the secrets of servers."""
        return self._named(("", "tls", *hosts), "secret", differ=self.secrets_differ)

    def _named(self, owned_by: Iterable[str], what: str, *, differ: bool) -> Iterator[str]:
        owners, runs = dict.fromkeys(owned_by), (self.running, self.planned)
        old, new = ([name for of in owners for name in run["secrets"].get(of, ())[:MOST_SECRETS]] for run in runs)
        before, after = dict.fromkeys(old), dict.fromkeys(new)
        moved = (KEY_VARIABLE,) if self._gate_reasons else ()  # between the gate and servers
        yield from (f"{what} {shown(name)} added" for name in after if name not in (*before, *moved))
        yield from (f"{what} {shown(name)} removed" for name in before if name not in (*after, *moved))
        if differ and sorted(old) == sorted(new) and after:
            yield f"a value of {', '.join(after)} changed"


def _first_reasons(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the first texts that differ, and `…` in place of more."""
    reasons: dict[str, None] = {}
    for text in texts:
        if len(reasons) == MOST_REASONS and text not in reasons:
            return (*reasons, "…")
        reasons[text] = None
    return tuple(reasons)


def _places(before: KeptServer, after: KeptServer) -> Iterator[str]:
    """Yield hosts and GPUs, where they differ."""
    places = [[(rank["host"], rank["gpus"], rank["role"]) for rank in server["ranks"]] for server in (before, after)]
    if places[0] != places[1] or list(before["gpus"].items()) != list(after["gpus"].items()):
        yield f"{_place(before)} → {_place(after)}"


def _place(server: KeptServer) -> str:
    gpus = server["gpus"] or {rank["host"]: rank["gpus"] for rank in server["ranks"]}
    standing = [f"spare on {rank['host']}" for rank in server["ranks"] if rank["role"] == "spare"]
    return " + ".join([*(f"{host} {indexes}" if indexes else host for host, indexes in gpus.items()), *standing])


def _flags(old: KeptRank, new: KeptRank) -> Iterator[str]:
    before, after = flags_of(old["argv"]), flags_of(new["argv"])
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield arrow(name, before.get(name), after.get(name))


def flags_of(argv: Sequence[str]) -> dict[str, str]:
    """Return the flags of a command line with their values, "" for one without; `model` is what `vllm serve` serves.

    A flag that is repeated has all of its values. Words before the first flag are the program.
    """
    words: dict[str, list[str]] = {}
    name = "program"
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            words.setdefault(name, []).extend([value] if equals else [])
        else:
            words.setdefault(name, []).append(word)
    program = words.pop("program", [])
    if len(program) > 2 and program[1] == "serve":  # vllm serve PATH
        return {_MODEL: " ".join(program[2:]), **{flag: " ".join(values) for flag, values in words.items()}}
    return {"program": " ".join(program), **{flag: " ".join(values) for flag, values in words.items()}}


def _env(old: KeptRank, new: KeptRank) -> Iterator[str]:
    before, after = old["env"], new["env"]
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield arrow(name, before.get(name), after.get(name))


def _ports(old: KeptRank, new: KeptRank) -> Iterator[str]:
    """Yield ports that no flag shows."""
    shown = " ".join((*new["argv"], *new["env"].values()))
    for use in dict.fromkeys((*old["ports"], *new["ports"])):
        before, after = old["ports"].get(use), new["ports"].get(use)
        if before != after and str(after) not in shown:
            yield arrow(f"port ({use})", before, after)


def _changed(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what has another digest: its host, of those named `host:path`, else "", and how it differs."""
    for name in dict.fromkeys((*before, *after)):
        host, _, path = name.partition(":/")
        if before.get(name) != after.get(name):
            how = "changed" if name in before and name in after else "added" if name in after else "removed"
            yield host if path else "", f"{what} {shown(name if path else name.rpartition('/')[2])} {how}"


def _serves_tls(rank: KeptRank) -> bool:
    return _TRUST in rank["env"] or any(word.startswith("--ssl-") for word in rank["argv"])


def _scripts(server: KeptServer) -> list[str]:
    return [rank["script"] for rank in server["ranks"]]


def _hosts(server: KeptServer) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*server["gpus"], *(rank["host"] for rank in server["ranks"]))))
