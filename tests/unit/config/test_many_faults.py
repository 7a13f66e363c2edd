"""Thousands of faults and of mounts in a small file: the first hundred are named, soon, and the others counted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flagscale_deploy.cli.project_file import read_project_file
from flagscale_deploy.config import compose
from flagscale_deploy.config.load import load_spec
from flagscale_deploy.config.schema.places import Document
from flagscale_deploy.config.source import read_yaml
from flagscale_deploy.errors import MOST_FAULTS, Fault, InputError, at_most
from flagscale_deploy.plan.validate import refuse_wrong, shown_secrets, unknown_flags
from tests.unit.config.files import write

SECONDS = 20.0
"""Processor time; below 2 s were seen, and minutes before."""
COUNT = 20_000
KEYS = "".join(f"    prefil_addres{number:05}-xq: 1\n" for number in range(COUNT))
MODEL = "model_args: {m: {model: a/b}}\n"
PLACES = {
    "root": MODEL + KEYS.replace("    ", ""),
    "router": f"{MODEL}deploy:\n  router:\n{KEYS}",
    "deploy": f"{MODEL}deploy:\n{KEYS}",
    "experiment": f"{MODEL}experiment:\n{KEYS}",
    "variables": f"{MODEL}experiment:\n  envs:\n{KEYS}",
    "serve": f"serve:\n    model_args: {{m: {{model: a/b}}}}\n{KEYS}",
    "hostfile": f"{MODEL}hostfile:\n    nodes: [{{master: {{ip: a}}}}]\n{KEYS}",
    "list form": f"- serve_id: m\n  engine_args: {{model: a/b}}\n  resources:\n{KEYS}",
    "models": f"{MODEL}deploy:\n  models:\n{KEYS}",
}


def faults_of(path: Path) -> list[Fault]:
    began = time.process_time()
    with pytest.raises(InputError) as caught:
        load_spec(path, environ={})
    assert time.process_time() - began < SECONDS
    return list(caught.value.faults)


@pytest.mark.parametrize("place", PLACES)
def test_the_first_hundred_faults_are_named(tmp_path: Path, place: str) -> None:
    write(tmp_path, {"c.yaml": PLACES[place]})
    faults = faults_of(tmp_path / "c.yaml")
    assert len(faults) == MOST_FAULTS + 1
    assert faults[-1].problem == f"{COUNT - MOST_FAULTS:,} more are not listed"
    assert sum(len(str(fault)) for fault in faults) < 400_000


def test_the_first_hundred_unknown_flags_are_warned_of(tmp_path: Path) -> None:
    write(tmp_path, {"c.yaml": f"model_args:\n  m:\n    model: a/b\n{KEYS}"})
    began = time.process_time()
    spec = load_spec(tmp_path / "c.yaml", environ={})
    refuse_wrong(spec)
    warnings = unknown_flags(spec)
    assert shown_secrets(spec) == []
    assert time.process_time() - began < SECONDS
    assert len(warnings) == MOST_FAULTS + 1
    assert warnings[-1] == Fault(str(tmp_path / "c.yaml"), "19,900 more are not listed", "correct these first")


def test_the_first_hundred_unknown_keys_of_a_project_file_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"flagscale-deploy.yaml": KEYS})
    monkeypatch.chdir(tmp_path)
    began = time.process_time()
    with pytest.raises(InputError, match="19,900 more are not listed"):
        read_project_file()
    assert time.process_time() - began < SECONDS


def test_few_faults_are_all_named() -> None:
    faults = [Fault("a", str(number)) for number in range(MOST_FAULTS)]
    assert at_most([*faults, *faults], "a") == faults


def test_a_group_is_read_once_however_often_it_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[Path] = []

    def counted(path: Path) -> Document:
        files.append(path)
        return read_yaml(path)

    monkeypatch.setattr(compose, "read_yaml", counted)
    own = f"defaults: [{{a: [{','.join(['x'] * 150)}]}}, {{b@c: y}}, _self_]\n{MODEL}a: {{k: {{n: 1}}}}\n"
    write(tmp_path, {"c.yaml": own, "a/x.yaml": "k: {m: 1}\n", "b/y.yaml": "k: 2\n"})
    tree, _ = compose.compose(tmp_path / "c.yaml")
    assert [path.name for path in files] == ["c.yaml", "x.yaml", "y.yaml"]
    assert (tree["a"], tree["c"]) == ({"k": {"m": 1, "n": 1}}, {"k": 2})


def test_mounts_of_one_group_share_no_value(tmp_path: Path) -> None:
    files = {"c.yaml": "defaults: [{a@b: x}, {a@c: x}, _self_]\nb: {k: {n: 2}}\n", "a/x.yaml": "k: {n: 1}\n"}
    write(tmp_path, files)
    assert compose.compose(tmp_path / "c.yaml")[0] == {"b": {"k": {"n": 2}}, "c": {"k": {"n": 1}}}


def test_groups_are_bounded_together(tmp_path: Path) -> None:
    text = "".join(f"k{number}: 'a=a=a=a=a=a=a=a=a=a=a=a=a=a=a='\n" for number in range(20_000))
    write(tmp_path, {"c.yaml": f"defaults: [{{g: [{','.join(['x'] * 199)}]}}]\n{MODEL}", "g/x.yaml": text})
    (fault,) = faults_of(tmp_path / "c.yaml")
    assert fault.problem == "makes all groups larger than 4.0 MiB"
