"""What the hosts keep of a run: the head first, verified, and who keeps something else."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from flagscale_deploy.deploy.kept_runs import NOT_KEPT, Configuration, compare_runs, read_configuration
from flagscale_deploy.errors import UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.kept import run_text
from tests.fakes import FakeFleet
from tests.unit.deploy.given import answering
from tests.unit.plan.given import RUN
from tests.unit.plan.test_kept import described

TEXT = run_text(described())
OTHER = run_text({**described(), "configuration": "model_args: {evil: {model: /m}}"})


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read(kept: dict[str, str], sent: dict[str, str] | None = None, **refused: Any) -> Configuration:
    """Read a run that hosts keep as these texts; `sent` is what they send instead."""
    replies = {**kept, **(sent or {})}

    def history(host: Host, args: dict[str, Any]) -> Any:
        assert args["run_id"] == RUN
        yield {"events": [], "run": replies[host.name]}

    fleet = FakeFleet(answering(history=history), list(kept), refused=refused)
    return read_configuration(fleet, "qwen", RUN, {name: {RUN: digest(text)} for name, text in kept.items()})


def test_the_head_s_is_read() -> None:
    configuration = read({"gpu01": TEXT, "gpu02": TEXT})
    assert (configuration.run, configuration.host) == (described(), "gpu01")
    assert (configuration.others, configuration.problem) == ((), "")


def test_hosts_that_keep_something_else_are_named() -> None:
    configuration = read({"gpu01": TEXT, "gpu02": OTHER})
    assert (configuration.host, configuration.others) == ("gpu01", ("gpu02",))


def test_without_the_head_another_host_is_asked() -> None:
    configuration = read({"gpu01": TEXT, "gpu02": TEXT}, gpu01=UnreachableError("gpu01", "no answer"))
    assert (configuration.run, configuration.host) == (described(), "gpu02")
    assert configuration.problem == "gpu01: no answer"


def test_what_is_not_of_the_digest_is_not_believed() -> None:
    configuration = read({"gpu01": TEXT, "gpu02": TEXT}, {"gpu01": OTHER})
    assert (configuration.host, configuration.problem) == ("gpu02", "gpu01: it sent something else than what it keeps")


def test_a_run_is_compared_with_the_one_before() -> None:
    later: Any = json.loads(run_text({**described(), "run_id": "r2"}))
    later["servers"][0]["ranks"][0]["argv"].append("--enforce-eager")
    texts = {RUN: TEXT, "r2": json.dumps(later)}
    fleet = FakeFleet(answering(history=lambda _host, args: [{"events": [], "run": texts[args["run_id"]]}]), ["gpu01"])
    kept = {"gpu01": {run_id: digest(text) for run_id, text in texts.items()}}
    compared = compare_runs(fleet, "qwen", "r2", RUN, kept)
    assert compared.difference is not None
    assert (compared.difference.run_id, compared.difference.history) == (RUN, ("qwen/0: + --enforce-eager",))
    assert compare_runs(fleet, "qwen", RUN, None, kept).difference is None
    assert compare_runs(fleet, "qwen", "r2", "r0", kept).difference is None


def test_of_another_run_or_no_run_nothing_is_taken() -> None:
    another = json.dumps({**described(), "run_id": "other"})
    assert read({"gpu01": another}).problem == "gpu01: it keeps another run under this name"
    assert read({"gpu01": "[]"}).run is None
    assert read({}).problem == NOT_KEPT
