"""Which servers a router has, by a record that any version may have written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from flagscale_deploy.remote.messages.record import Record
from flagscale_deploy.remote.supervisor.router import Router, servers

A, B = "http://10.0.0.1:8000", "http://10.0.0.2:8000"


def group(name: str, *urls: object, model: str = "m") -> dict[str, Any]:
    ranks = [{"name": name, "local_url": "http://127.0.0.1:8000", "worker_url": url} for url in urls]
    return {"name": name, "model": model, "ranks": [*ranks, {"name": f"{name}-follower", "local_url": ""}]}


BOTH = [group("m/0", A), group("m/1", B)]


@pytest.mark.parametrize(
    ("record", "behind"),
    [
        ({"instances": BOTH}, [A, B]),
        ({"instances": [group("m/0", A, B), group("n/0", A, model="n")]}, [A, B]),
        ({"instances": BOTH, "change": {"groups": ["m/1"], "step": "stop"}}, [A]),
        ({"instances": BOTH, "change": {"groups": ["m/1", "m/0"], "step": "start"}}, []),
        ({"instances": BOTH, "change": {"groups": ["m/1"], "step": "return"}}, [A, B]),
        ({"instances": BOTH, "change": {"groups": [], "step": ""}}, [A, B]),
        ({}, None),
        ({"instances": [group("n/0", A, model="n")]}, None),
        ({"instances": [{"name": "m/0", "model": "m"}]}, None),
        ({"instances": [group("m/0", A), {**group("m/1"), "ranks": [{"local_url": "http://127.0.0.1:1"}]}]}, None),
        ({"instances": [group("m/0", 7)]}, None),
    ],
)
def test_servers_are_behind_their_router_unless_a_change_has_them_out(
    record: dict[str, Any], behind: list[str] | None
) -> None:
    assert servers(cast(Record, record), "m") == behind


@pytest.mark.parametrize(
    "content", [None, "{", '{"run_id": "r0", "instances": []}', '{"run_id": "r1", "instances": 7}']
)
def test_without_a_record_of_this_run_a_command_line_is_as_it_is(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "record.json").write_text(content)
    words = ["vllm-router", "--worker-urls", A, B, "--port=1"]
    lines: list[str] = []
    router = Router(tmp_path, "r1", "router_m.sh", "m", lines.append)
    assert router.command(words) == words
    assert router.new_script() is None
    assert lines == []
