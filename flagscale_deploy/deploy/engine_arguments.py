"""Let the vLLM on each host parse the command lines that it will get."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from flagscale_deploy.checks.types import Parsed
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import HostError, InputError
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.rank import Rank
from flagscale_deploy.plan.stages import before_start
from flagscale_deploy.remote import engine
from flagscale_deploy.remote.messages.check import PARSE_FLAGS, ParsedFlags, ParseFlagsArguments
from flagscale_deploy.remote.system.files import make_private_directory, write_atomically
from flagscale_deploy.support.input_files import read_text
from flagscale_deploy.support.shell import exports, literals
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.remote_program import call

PARSE_SECONDS = 240.0
"""`import vllm` takes 5 s here, 10 s and more from a slow disk, and took 60 s on cores with much else to do."""
SLACK_SECONDS = 10.0
KEPT_SECONDS = 30 * 86400
READS_FILES = ("--config", "--chat-template")
"""Flags whose files vLLM reads while it parses: results with them are not cached."""
OF_ONE_INSTANCE = ("CUDA_VISIBLE_DEVICES", "RAY_ADDRESS")
Line = tuple[str, ...]


@dataclass(frozen=True)
class Cache:
    """Remembers the command lines that the vLLM of a host accepted, by hash; without a directory nothing.

    Rejected command lines are not remembered: they will be changed. A directory that can't be read or written counts as
    none. Entries that were not used for 30 days are removed.
    """

    directory: Path | None

    def has(self, key: str) -> bool:
        """Return whether a key is remembered; if so, keep it for another 30 days."""
        if self.directory is None:
            return False
        try:
            path = self.directory / f"{key}.json"
            fresh = time.time() - path.stat().st_mtime < KEPT_SECONDS
            good = fresh and json.loads(read_text(path)) == {"good": key}
            if good:
                os.utime(path)
        except (InputError, OSError, RecursionError, ValueError):
            return False
        return good

    def add(self, keys: Sequence[str]) -> None:
        """Remember keys, and remove old ones."""
        if self.directory is None or not keys:
            return
        with contextlib.suppress(OSError):
            make_private_directory(self.directory)
            for key in keys:
                write_atomically(self.directory / f"{key}.json", json.dumps({"good": key}))
            for path in self.directory.iterdir():
                if time.time() - path.stat().st_mtime > KEPT_SECONDS:
                    path.unlink()


def default_cache() -> Path:
    """Return the directory of results: on Linux below $XDG_CACHE_HOME if that is an absolute path, else ~/.cache."""
    return platformdirs.user_cache_path("flagscale-deploy") / "parsed"


def parse_engine_arguments(
    fleet: Fleet, spec: ServeSpec, plan: Plan, facts: Mapping[str, Facts], cache: Path | None
) -> dict[str, Parsed]:
    """Return what vLLM's parser on each host says about the command line of each rank, by the rank's name.

    Hosts parse at the same time, each once for all its ranks, for at most 240 s; nothing is started. Left out are
    users' own programs, and hosts without facts, without vLLM, or with a broken environment, which other checks report.
    `cache` is a directory; a command line that any host with the same parser refused is not remembered.
    """
    store = Cache(cache)
    every = (rank for instance in plan.instances for rank in instance.members)
    ranks = [rank for rank in every if _is_asked(rank, facts)]
    parsers = {rank.name: facts[rank.host].parser for rank in ranks}
    keys = {rank.name: _key(rank, fleet.hosts[rank.host], parsers[rank.name]) for rank in ranks}
    good = {name for name, key in keys.items() if key and store.has(key)}
    wanted: dict[str, list[Rank]] = {}
    for rank in ranks:
        if rank.name not in good:
            wanted.setdefault(rank.host, []).append(rank)
    parsed = {name: Parsed() for name in good}
    results = fleet.map(lambda host: _ask(fleet, spec, host, wanted[host.name]), wanted)
    for host, result in results.items():
        for rank in wanted[host]:
            if isinstance(result, HostError):
                parsed[rank.name] = Parsed(broken=result.problem)
            else:
                parsed[rank.name] = result[_line(rank)]
    asked = {rank.name: (parsers[rank.name], _line(rank)) for rank in ranks}
    refused = {asked[name] for name in asked if not _is_good(parsed[name])}
    store.add([key for name, key in keys.items() if key and name not in good and asked[name] not in refused])
    return {name: parsed[name] for name in asked}


def _is_asked(rank: Rank, facts: Mapping[str, Facts]) -> bool:
    seen = facts.get(rank.host)
    usable = seen is not None and seen.vllm is not None and seen.environment_error is None
    return usable and rank.argv[:2] == ("vllm", "serve")


def _is_good(parsed: Parsed) -> bool:
    return not (parsed.broken or parsed.error or parsed.unknown)


def _line(rank: Rank) -> Line:
    """Return the command line from `serve` on, without the port, which differs between replicas."""
    return tuple(word for word in rank.argv[1:] if not word.startswith("--port="))


def _key(rank: Rank, host: Host, parser: str | None) -> str | None:
    """Return a cache key of host, parser, command line and vLLM's variables; None where the result cannot be cached.

    A host names its parser itself: what it says of a command line counts for no other host.
    """
    if parser is None or any(word.startswith(READS_FILES) for word in rank.argv):
        return None
    env = sorted(
        (name, value) for name, value in rank.env.items() if name.startswith("VLLM_") and name != "VLLM_HOST_IP"
    )
    return hashlib.sha256(
        json.dumps([host.name, host.address, host.port, parser, _line(rank), env]).encode()
    ).hexdigest()


def _ask(fleet: Fleet, spec: ServeSpec, host: Host, ranks: Sequence[Rank]) -> dict[Line, Parsed]:
    """Let one host parse each different command line once. Raises HostError."""
    lines = list(dict.fromkeys(_line(rank) for rank in ranks))
    env = {name: value for name, value in ranks[0].env.items() if name not in OF_ONE_INSTANCE}
    args: ParseFlagsArguments = {
        "venv": host.venv,
        "before_start": before_start(spec, host),
        "env": literals(env),
        "exports": exports(env),
        "program": _program(),
        "lines": lines,
        "seconds": PARSE_SECONDS,
    }
    limit = PARSE_SECONDS + SLACK_SECONDS
    result = call(fleet.connection(host.name), PARSE_FLAGS, args, timeout=limit, cancelled=fleet.cancelled)
    if "broken" in result:
        return dict.fromkeys(lines, Parsed(broken=result["broken"]))
    flags = tuple(result["known"])
    return {line: _parsed(parsed, flags) for line, parsed in zip(lines, result["parsed"], strict=True)}


def _parsed(reply: ParsedFlags, flags: tuple[str, ...]) -> Parsed:
    return Parsed(error=reply["error"], unknown=tuple(reply["unknown"]), known=flags)


def _program() -> str:
    return Path(engine.__file__).with_name("vllm_parser.py").read_text(encoding="utf-8")
