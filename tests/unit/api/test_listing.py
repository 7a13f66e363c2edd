"""`status` without a name: which deployments there are is what each host says, which may be anything."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy import api
from flagscale_deploy.api import listing
from flagscale_deploy.inventory.model import Host
from tests.fakes import Output
from tests.unit.api.world import World


class Boastful(World):
    """The second host has records of deployments with these names."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        super().__init__(folder)
        self.names = list(names)

    def probe(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        for reply in super().probe(host, args):
            assert isinstance(reply, dict)
            records = [{"deployment": name} for name in self.names if host.name == "gpu02"]
            yield {**reply, "deployments": records}


def listed(world: World) -> tuple[api.Listing, set[str]]:
    """Return the listing, and the names that any host was asked about."""
    result = api.deployments(world.request())
    return result, {call.args["deployment"] for call in world.calls if call.module == "inspect"}


def test_names_without_end_of_one_host_are_not_all_looked_at(tmp_path: Path) -> None:
    result, asked = listed(Boastful(tmp_path, (f"made-up-{at}" for at in range(3000))))
    assert len(result.deployments) == len(asked) == listing.MOST_NAMES
    assert result.unknown == {"gpu02": "not all of its 3,000 deployments are listed; give --name"}
    assert result.exit_code == 3


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-rf", "x" * 64, "a\nb", "\x1b[2J", "a b", "$(id)"])
def test_no_host_is_asked_about_what_is_no_name(tmp_path: Path, name: str) -> None:
    result, asked = listed(Boastful(tmp_path, [name, "qwen"]))
    assert asked == {"qwen"}
    assert "gpu02" in result.unknown


def test_looks_that_last_are_ended_and_the_rest_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "ALL_SECONDS", 0.0)
    result, asked = listed(Boastful(tmp_path, ["one", "two"]))
    assert asked == set()
    left_out = "not looked at: the deployments before it took 0 s; give its --name"
    assert result.unknown == dict.fromkeys(("one", "two"), left_out)


def test_usual_names_are_all_listed(tmp_path: Path) -> None:
    result, asked = listed(Boastful(tmp_path, ["one", "two"]))
    assert asked == {"one", "two"}
    assert [status.deployment for status in result.deployments] == ["one", "two"]
    assert result.unknown == {}
