"""Which hosts are asked about which command lines, and what is remembered of the answers."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flagscale_deploy.checks.types import Parsed
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.deploy.engine_arguments import default_cache, parse_engine_arguments
from flagscale_deploy.errors import RemoteError, UnreachableError
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Host
from tests.fakes import FakeFleet, Output
from tests.unit.plan.given import host, inventory, model, planned, seen, spec

NAMES = ("gpu01", "gpu02")
KNOWN = ("max-model-len",)
FACTS = seen(*NAMES, parser="0.32.0 abcd")
SPEC = spec(
    model("small", port=4567, replicas=2),
    model("large", port=4600, engine_args={"max-model-lenn": 5}),
    env={"VLLM_PLUGINS": "ours"},
    before_start="module load vllm",
)
SMALL, LARGE = ["serve", "/models/small"], ["serve", "/models/large", "--max-model-lenn=5"]


def say(_host: Host, _module: str, args: dict[str, Any]) -> Iterator[Output]:
    """Reply as a parser that knows one flag less than is used."""
    unknown = [["max-model-lenn"] if "--max-model-lenn=5" in line else [] for line in args["lines"]]
    yield {"known": KNOWN, "parsed": [{"error": "", "unknown": flags} for flags in unknown]}


def ask(
    fleet: FakeFleet, cache: Path | None = None, facts: Mapping[str, Facts] = FACTS, serve: ServeSpec = SPEC
) -> dict[str, Parsed]:
    hosts = inventory(*(host(name, venv=f"/venv/{name}") for name in NAMES))
    return parse_engine_arguments(fleet, serve, planned(hosts, serve, seen(*NAMES)), facts, cache)


def fleet(handler: Any = say) -> FakeFleet:
    return FakeFleet(handler, [host(name, venv=f"/venv/{name}") for name in NAMES])


def files(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def test_each_driver_host_is_asked_once_about_each_different_line() -> None:
    hosts = fleet()
    assert ask(hosts) == {
        "small/0": Parsed(known=KNOWN),
        "small/1": Parsed(known=KNOWN),
        "large/0": Parsed(unknown=("max-model-lenn",), known=KNOWN),
    }
    lines = {call.host: call.args["lines"] for call in hosts.sent("parse_flags")}
    assert len(lines) == len(hosts.calls)
    parsed = [line for of_host in lines.values() for line in of_host]
    assert sorted(map(tuple, parsed)) in ([tuple(LARGE), tuple(SMALL)], [tuple(LARGE), tuple(SMALL), tuple(SMALL)])
    assert all(len(set(map(tuple, of_host))) == len(of_host) for of_host in lines.values())


def test_it_is_asked_in_the_environment_that_scripts_will_have() -> None:
    hosts = fleet()
    ask(hosts)
    for call in hosts.calls:
        assert call.args["venv"] == f"/venv/{call.host}"
        assert call.args["before_start"] == "module load vllm"
        assert call.args["env"]["VLLM_PLUGINS"] == "ours"
        assert "CUDA_VISIBLE_DEVICES" not in call.args["env"]


def test_hosts_that_other_checks_complain_of_are_not_asked() -> None:
    for changed in ({}, {"vllm": None}, {"environment_error": "exit status 1"}):
        some: dict[str, Facts] = {name: replace(facts, **changed) for name, facts in FACTS.items()}
        hosts = fleet()
        assert ask(hosts, facts=some if changed else {}) == {}
        assert hosts.calls == []


def test_a_host_that_cannot_say_is_a_result_of_its_own(tmp_path: Path) -> None:
    def handler(on: Host, module: str, args: dict[str, Any]) -> Iterator[Output]:
        if on.name == "gpu01":
            yield {"broken": "ImportError: libcudart.so.12"}
        else:
            yield UnreachableError(on.name, "the SSH connection was lost")

    problems = {parsed.broken for parsed in ask(fleet(handler), tmp_path / "cache").values()}
    assert problems <= {"ImportError: libcudart.so.12", "the SSH connection was lost"}
    assert "ImportError: libcudart.so.12" in problems
    assert not (tmp_path / "cache").exists()


def test_only_good_lines_are_remembered_and_nothing_of_what_they_say(tmp_path: Path) -> None:
    cache = tmp_path / "of/ours"
    first = fleet()
    parsed = ask(first, cache)
    again = fleet()
    assert ask(again, cache) == parsed | {"small/0": Parsed(), "small/1": Parsed()}
    assert [call.args["lines"] for call in again.calls] == [[LARGE]]
    kept = files(cache)[0]
    assert len(files(cache)) == len({call.host for call in first.sent("parse_flags") if SMALL in call.args["lines"]})
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert "small" not in kept.name + kept.read_text()


def test_another_parser_another_flag_or_another_plugin_is_asked_again(tmp_path: Path) -> None:
    serve = spec(model("small", port=4567))
    ask(fleet(), tmp_path, serve=serve)
    same = fleet()
    ask(same, tmp_path, serve=spec(model("small", port=9000)))
    assert same.calls == []
    for facts, changed in (
        (seen(*NAMES, parser="0.33.0 abcd"), serve),
        (FACTS, spec(model("small", port=4567, engine_args={"seed": 1}))),
        (FACTS, replace(serve, env={"VLLM_PLUGINS": "other"})),
    ):
        other = fleet()
        ask(other, tmp_path, facts=facts, serve=changed)
        assert len(other.calls) == 1


def test_what_one_host_accepts_is_remembered_for_no_other_host_and_not_where_one_refused_it(tmp_path: Path) -> None:
    """A host names its parser itself: one that lies must not vouch for the vLLM of others."""
    serve = spec(model("large", tp=8, port=4567, replicas=2))

    def disagree(on: Host, _module: str, args: dict[str, Any]) -> Iterator[Output]:
        error = "" if on.name == "gpu01" else "unrecognized arguments"
        yield {"known": KNOWN, "parsed": [{"error": error, "unknown": []} for _ in args["lines"]]}

    for _ in range(2):
        hosts = fleet(disagree)
        assert {parsed.error for parsed in ask(hosts, tmp_path / "cache", serve=serve).values()} == {
            "", "unrecognized arguments",
        }  # fmt: skip
        assert sorted(call.host for call in hosts.calls) == ["gpu01", "gpu02"]
    assert not (tmp_path / "cache").exists()
    ask(fleet(), tmp_path / "cache", serve=serve)
    assert len(files(tmp_path / "cache")) == 2
    same = fleet()
    ask(same, tmp_path / "cache", serve=serve)
    assert same.calls == []
    moved = FakeFleet(say, [host("gpu01", venv="/venv/gpu01"), host("gpu02", venv="/venv/gpu02", address="10.9.9.9")])
    ask(moved, tmp_path / "cache", serve=serve)
    assert [call.host for call in moved.calls] == ["gpu02"]


def test_without_a_name_for_the_parser_or_with_files_of_the_host_nothing_is_remembered(tmp_path: Path) -> None:
    ask(fleet(), tmp_path, facts=seen(*NAMES))
    ask(fleet(), tmp_path, serve=spec(model("small", port=4567, engine_args={"chat-template": "/etc/chat.jinja"})))
    ask(fleet(), tmp_path, serve=spec(model("small", port=4567, engine_args={"config": "/etc/engine.yaml"})))
    assert files(tmp_path) == []


def test_what_is_old_is_asked_again_and_dropped(tmp_path: Path) -> None:
    serve = spec(model("small", port=4567))
    ask(fleet(), tmp_path, serve=serve)
    month = time.time() - 31 * 86400
    stray = tmp_path / "stray.json"
    stray.write_text("{}")
    for path in files(tmp_path):
        os.utime(path, (month, month))
    again = fleet()
    ask(again, tmp_path, serve=serve)
    assert len(again.calls) == 1
    assert not stray.exists()
    assert len(files(tmp_path)) == 1


def test_a_cache_that_is_broken_or_cannot_be_written_is_as_good_as_none(tmp_path: Path) -> None:
    serve = spec(model("small", port=4567))
    ask(fleet(), tmp_path / "cache", serve=serve)
    (kept,) = files(tmp_path / "cache")
    for text in ("", "[1]", json.dumps({"good": "other"}), "\0"):
        kept.write_text(text)
        again = fleet()
        assert ask(again, tmp_path / "cache", serve=serve) == {"small/0": Parsed(known=KNOWN)}
        assert len(again.calls) == 1
    (tmp_path / "file").write_text("")
    assert ask(fleet(), tmp_path / "file/cache", serve=serve) == {"small/0": Parsed(known=KNOWN)}


def test_the_cache_is_where_the_user_wants_caches(monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert default_cache() == Path("/var/cache/me/flagscale-deploy/parsed")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache() == Path("/home/me/.cache/flagscale-deploy/parsed")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path("/home/me/.cache/flagscale-deploy/parsed")


def test_a_program_that_fails_on_the_host_is_told() -> None:
    def handler(on: Host, _module: str, _args: dict[str, Any]) -> Iterator[Output]:
        yield RemoteError(on.name, "parse_flags: exit status 1")

    assert ask(fleet(handler), serve=spec(model("small", port=4567))) == {
        "small/0": Parsed(broken="parse_flags: exit status 1")
    }
