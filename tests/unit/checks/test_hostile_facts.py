"""A remedy is pasted into a shell, often of another host: no text of a host stands in one as anything but a word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any

import pytest

from flagscale_deploy.checks.registry import judge
from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.facts.model import Facts, ForeignRay, GpuProcess, HeldLock, ListeningPort, ModelFiles, TlsFile
from tests.unit.checks.given import ASKED, FILES, HOSTS, facts, make_context
from tests.unit.plan.given import inventory, model, spec

EVIL = "7'$(evil)\"; evil #"
ADDRESSES = ("default_address", "hostname_addresses")
BUSY = tuple(replace(gpu, processes=(GpuProcess(7, 9, "x", "x", "x/y"),)) for gpu in facts(HOSTS[0]).gpus)
FULL: dict[str, Any] = {
    "gpus": BUSY,
    "locks": (HeldLock("qwen", 7, {"who": "x", "what": "run", "since": "x", "from": "x"}),),
    "foreign_ray": (ForeignRay(7, "x", "/x/raylet"),),
    "ports": (ListeningPort(8000, "0.0.0.0", 7, "x", "x/y"), ListeningPort(6379, "0.0.0.0", 8, "x")),
    "runs": {"qwen/r1": 1},
    "unwritable": ("/tmp",),
    "tls_files": {"/x.pem": TlsFile("x"), "/y.pem": TlsFile(mode=0o644, names=("x",), hash="x")},
    "deployments": ({"deployment": "qwen", "run_id": "r0", "operator": "x", "gpus": [0], "ports": {"x": 8000}},
                    {"deployment": "x", "broken": "x"}),
    "models": (FILES, ModelFiles("/x", "x"), replace(FILES, torn={"x": "x"}, pointers=("x",), indexed=("x",))),
    **dict.fromkeys(("boot_problem", "gpu_error", "environment_error", "noise", "nixl", "router", "aiohttp"), "x"),
}  # fmt: skip
"""What a host of `facts` lacks, so that each text has a place."""
SPECS = {
    "ray": ASKED,
    "without Ray": spec(model(tp=32), executor="mp", restart=RestartSpec("on-failure", boot=True)),
    "none": None,
}


def forged(value: Any) -> Iterator[Any]:
    """Yield a value with, in place of one of its texts after the other, what no shell should read."""
    if isinstance(value, str):
        yield EVIL
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            if item.name != "addresses":
                for other in forged(getattr(value, item.name)):
                    yield replace(value, **{item.name: other})
    elif isinstance(value, tuple):
        for at, part in enumerate(value[:4]):
            for other in forged(part):
                yield (*value[:at], other, *value[at + 1 :])
    elif isinstance(value, dict):
        for key, part in list(value.items())[:4]:
            rest = {name: inner for name, inner in value.items() if name != key}
            yield from ({**rest, key: other} for other in forged(part))
            yield {**rest, EVIL: part}


def lies() -> Iterator[tuple[str, Any]]:
    """Yield each fact with each of its texts forged; addresses are addresses (see below)."""
    sound = facts(HOSTS[0])
    for item in fields(sound):
        for value in (getattr(sound, item.name), FULL.get(item.name)):
            if item.name not in ADDRESSES:
                yield from ((item.name, lie) for lie in forged(value))


@pytest.mark.parametrize("given", SPECS.values(), ids=SPECS.keys())
def test_no_remedy_holds_a_text_of_a_host_that_a_shell_would_read(given: ServeSpec | None) -> None:
    """Of two hosts that differ, the first is taken for the right one."""
    wrong = {}
    count = 0
    for name, lie in lies():
        count += 1
        for hosts in (HOSTS[:2], HOSTS):
            context = make_context({HOSTS[0]: {name: lie}}, serve_spec=given, hosts=inventory(*hosts))
            remedies = [verdict for verdict in judge(context, ()) if EVIL in verdict.remedy]
            wrong.update({(verdict.check, name): verdict.remedy for verdict in remedies})
    assert count > 60
    assert wrong == {}


NO_ADDRESS = "does not appear to be an IPv4 or IPv6 address"


@pytest.mark.parametrize(
    ("place", "forgery", "problem"),
    [
        ("default_address", EVIL, NO_ADDRESS),
        ("hostname_addresses", [EVIL], NO_ADDRESS),
        ("interfaces", [{"name": "x", "addresses": [EVIL]}], NO_ADDRESS),
        ("interfaces", [{"name": "x\0", "addresses": []}], r"it reports an interface 'x\\x00'"),
    ],
)
def test_what_becomes_an_address_or_a_part_of_a_script_is_checked_before(
    place: str, forgery: object, problem: str
) -> None:
    """Else it would end the command for all hosts."""
    answer: Any = asdict(facts(HOSTS[0]))
    assert Facts.parse(answer) == facts(HOSTS[0])
    answer[place] = forgery
    with pytest.raises(ValueError, match=problem):
        Facts.parse(answer)
