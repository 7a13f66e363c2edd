"""Two runs that a hostile host keeps, however large they are, are compared in seconds and in little memory."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest

from flagscale_deploy.plan.difference import MOST_REASONS, difference
from flagscale_deploy.plan.kept import parse_run
from flagscale_deploy.remote.deployment.kept import LONGEST
from tests.unit.plan.test_kept import described

SIZE = LONGEST // 4
"""Characters of a run: with this many, comparing each name with each took a minute."""
RUN: Any = {**described(), "servers": [], "configuration": "", "hosts": [], "secrets": {}}
RANK: Any = {
    **{"name": "", "role": "", "host": "h", "gpus": [], "ports": {}, "argv": [], "env": {"SSL_CERT_FILE": ""}},
    "script": "",
}
SERVERS: Any = [{"name": f"{number:x}", "model": "", "engine": "program", "gpus": {}, "ranks": [RANK]}
                for number in range(SIZE // 400)]  # fmt: skip
NAMES = [f"{number:x}" for number in range(SIZE // 30)]
MANY: dict[str, Any] = {
    "secrets": {"secrets": {"": NAMES}},
    "secrets of a host": {"secrets": {"h": NAMES}},
    "certificates": {"tls": {f"h:/{name}": "" for name in NAMES}},
    "certificates that are sent": {"tls": dict.fromkeys(NAMES, "")},
    "files": {"program": dict.fromkeys(NAMES, "")},
    "versions": {"versions": {"h": dict.fromkeys(NAMES, "")}},
    "hosts": {"hosts": [{"name": name} for name in NAMES]},
    "long names of files": {"program": {"x" * (SIZE // 3): ""}},
    "long names of secrets": {"secrets": {"": ["x" * (SIZE // 3)]}},
    "long names of versions": {"versions": {"h": {"x" * (SIZE // 3): ""}}},
    "long names of hosts": {"versions": {"x" * (SIZE // 3): dict.fromkeys(NAMES[:100], "")}},
    "a long setting": {"hosts": [{"name": "h", "venv": "x" * (SIZE // 3)}]},
}


def other(value: Any) -> Any:
    """Return a value in which each name and each text is another one."""
    if isinstance(value, dict):
        return {key if key in ("h", "name", "venv", "") else f"{key}y": other(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [other(inner) for inner in value]
    return value if value == "h" else f"{value}y"


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("how", ["the same", "others"])
def test_servers_that_differ_in_much_are_compared_soon(name: str, how: str) -> None:
    before = {**RUN, "servers": SERVERS, **MANY[name]}
    change = {key: other(value) for key, value in MANY[name].items()} if how == "others" else {}
    texts = [json.dumps(run) for run in (before, copy.deepcopy(before) | change)]
    assert SIZE // 2 < len(texts[0]) < LONGEST
    runs = [parse_run(text) for text in texts]
    began = time.process_time()
    outcome = difference(runs[0], runs[1])
    assert time.process_time() - began < 10, "seen: 0.5 s"
    assert all(len(server.reasons) <= MOST_REASONS + 1 for server in outcome.servers)
    assert sum(map(len, outcome.history)) < 20 * SIZE


def test_a_server_with_many_ranks_is_compared_soon() -> None:
    ranks = [{**RANK, "host": f"h{number}", "env": {}} for number in range(SIZE // 250)]
    hosts = [{"name": f"h{number}"} for number in range(SIZE // 50)]
    run = parse_run(json.dumps({**RUN, "servers": [{**SERVERS[0], "ranks": ranks}], "hosts": hosts}))
    began = time.process_time()
    assert difference(run, run).lines == ()
    assert time.process_time() - began < 5, "seen: 0.05 s"
