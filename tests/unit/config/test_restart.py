"""`deploy.restart`, in every way to write it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.errors import InputError

ON = RestartSpec(policy="on-failure")


def read(folder: Path, restart: str, *overrides: str) -> RestartSpec:
    path = folder / "serve.yaml"
    path.write_text(f"model_args:\n  m: {{model: /m}}\ndeploy:\n  restart: {restart}\n")
    return load_spec(path, overrides=overrides).restart


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("null", RestartSpec()),
        ("no", RestartSpec()),
        ("false", RestartSpec()),
        ("'no'", RestartSpec()),
        ("on-failure", ON),
        ("on_failure", ON),
        ("{policy: on-failure}", ON),
        ("{policy: no, boot: true}", RestartSpec(boot=True)),
        ("{boot: yes}", RestartSpec("on-failure", boot=True)),
        ("{max: 3}", RestartSpec("on-failure", 3)),
        ("{backoff: 10}", RestartSpec("on-failure", 5, 10, 1, 10)),
        ("{backoff: 2m}", RestartSpec("on-failure", 5, 120, 1, 120)),
        ("{backoff: {first: 2, factor: 3, max: 5m}, reset-after: 1h}", RestartSpec("on-failure", 5, 2, 3, 300, 3600)),
        ("{hang: 2m, interval: 30}", replace(ON, hang=120.0, interval=30.0)),
        ("{hang: off, interval: off}", replace(ON, hang=0.0, interval=0.0)),
        ("{hang: 'no', interval: 0}", replace(ON, hang=0.0, interval=0.0)),
        ("{backoff: {first: 2m}}", RestartSpec("on-failure", 5, 120, 2, 120)),
    ],
)
def test_what_is_meant(tmp_path: Path, written: str, meant: RestartSpec) -> None:
    assert read(tmp_path, written) == meant


def test_an_override_takes_it_back(tmp_path: Path) -> None:
    assert read(tmp_path, "{policy: on-failure, max: 3}", "deploy.restart.policy=no").policy == "no"
    assert read(tmp_path, "no", "deploy.restart=on-failure") == ON


@pytest.mark.parametrize(
    ("written", "place", "problem", "remedy"),
    [
        ("always", "deploy.restart", "'always': expected no or on-failure", "whatever its exit status"),
        ("true", "deploy.restart", "True: expected no or on-failure", "whatever its exit status"),
        ("{polcy: no}", "deploy.restart.polcy", "unknown key", "did you mean policy?"),
        ("{max: 0}", "deploy.restart.max", "greater than or equal to 1", ""),
        ("{max: many}", "deploy.restart.max", "expected a whole number", ""),
        ("{backoff: {frist: 1}}", "deploy.restart.backoff.frist", "unknown key", "did you mean first?"),
        ("{backoff: {factor: 0.5}}", "deploy.restart.backoff.factor", "greater than or equal to 1", ""),
        ("{backoff: {first: 2m, max: 1m}}", "deploy.restart.backoff.first", "more than the longest wait", "larger"),
        ("{hang: 0.5}", "deploy.restart.hang", "expected at least 1 s, or off", "hang: 10m"),
        ("{hang: 400d}", "deploy.restart.hang", "expected at least 1 s, or off", ""),
        ("{hang: yes}", "deploy.restart.hang", "", ""),
        ("{interval: .inf}", "deploy.restart.interval", "expected a number", ""),
        ("{interval: soon}", "deploy.restart.interval", "expected a number", ""),
        ("{boot: maybe}", "deploy.restart.boot", "expected true or false", ""),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(
    tmp_path: Path, written: str, place: str, problem: str, remedy: str
) -> None:
    with pytest.raises(InputError) as raised:
        read(tmp_path, written)
    (fault,) = raised.value.faults
    assert fault.where.endswith(f": {place}")
    assert problem in fault.problem
    assert remedy in fault.remedy
