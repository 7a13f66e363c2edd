from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest

from flagscale_deploy.deploy.run_folder import RunFolder, new_run_id, write_scripts
from flagscale_deploy.diagnosis import clocks
from flagscale_deploy.errors import InputError
from flagscale_deploy.output.junit import write_junit
from flagscale_deploy.support.paths import refuse_unwritable, safe_name
from tests.unit.plan.given import inventory, planned, spec


def test_what_cannot_be_written_is_reported_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(InputError, match=r"report\.json cannot be written there: Is a directory\n.*exp_dir"):
        RunFolder(tmp_path).write_json("report.json", {"verdict": "ready"})


@pytest.mark.parametrize("link", ["vllm.sh", "vllm.sh.new"])
def test_scripts_are_not_written_through_links(tmp_path: Path, link: str) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "out/gpu01").mkdir(parents=True)
    (tmp_path / "out/gpu01" / link).symlink_to(tmp_path / "victim")
    (script,) = write_scripts(tmp_path / "out", {"gpu01": {"vllm.sh": "text"}})
    assert (tmp_path / "victim").read_text() == "kept"
    assert (script.read_text(), script.is_symlink(), stat.S_IMODE(script.stat().st_mode)) == ("text", False, 0o700)


def test_the_folder_of_a_hosts_scripts_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/gpu01").symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match="is no folder of yours, or a link"):
        write_scripts(tmp_path / "out", {"gpu01": {"vllm.sh": "text"}})
    assert list((tmp_path / "victim").iterdir()) == []


def test_files_for_ci_are_not_written_through_links(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    for name in ("smoke.xml", "report.json", clocks.FILE):
        (tmp_path / name).symlink_to("victim")
    write_junit("qwen", [], tmp_path / "smoke.xml", str)
    RunFolder(tmp_path).write_json("report.json", {})
    clocks.write(tmp_path, {"gpu01": clocks.Clock()})
    assert [path.name for path in tmp_path.iterdir() if path.is_symlink()] == []
    refuse_unwritable(tmp_path / "new.xml", "the JUnit file")
    assert not (tmp_path / "new.xml").exists()
    assert (tmp_path / "victim").read_text() == "kept"


def test_run_ids_are_unique_and_their_names_sort_by_time() -> None:
    made = [new_run_id() for _ in range(50)]
    assert len(set(made)) == 50
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", run_id) for run_id in made)


def test_a_run_has_a_folder_of_its_own_that_nobody_else_reads(tmp_path: Path) -> None:
    folder = RunFolder.make(str(tmp_path / "outputs" / "qwen"), "run-1", str)
    assert folder.path == tmp_path / "outputs" / "qwen" / "runs" / "run-1"
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert (folder.events, folder.logs) == (folder.path / "events.jsonl", folder.path / "logs")


@pytest.mark.parametrize("in_the_way", ["", "outputs", "outputs/runs"])
def test_a_place_that_cannot_be_is_bad_input(tmp_path: Path, in_the_way: str) -> None:
    path = tmp_path / in_the_way
    if in_the_way:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a file")
    else:
        RunFolder.make(str(tmp_path / "outputs"), "run-1", str)
    with pytest.raises(InputError) as raised:
        RunFolder.make(str(tmp_path / "outputs"), "run-1", str)
    (fault,) = raised.value.faults
    assert fault.where == str(tmp_path / "outputs/runs" / ("" if in_the_way else "run-1"))
    assert fault.problem.startswith("cannot be made: ")
    assert "experiment.exp_dir" in fault.remedy


def test_the_plan_and_the_very_scripts_are_kept(tmp_path: Path) -> None:
    folder = RunFolder.make(str(tmp_path), "run-1", lambda text: text.replace("s3cret", "[REDACTED]"))
    made = planned(inventory("gpu01", "gpu02"), spec(ray="on", env={"A": "s3cret"}))
    folder.write_plan(made)
    text = (folder.path / "plan.json").read_text()
    assert json.loads(text)["digest"] == made.digest
    assert "s3cret" not in text
    script = folder.path / "scripts" / "gpu01" / "ray_head.sh"
    assert script.read_text() == made.scripts["gpu01"]["ray_head.sh"]
    assert script.stat().st_mode & 0o100
    assert (folder.path / "scripts" / "gpu02" / "ray_worker.sh").is_file()
    folder.write_plan(made, hides=True)
    assert not [path for path in folder.path.rglob("*") if path.is_file() and "s3cret" in path.read_text()]


def test_scripts_are_written_over_those_of_before(tmp_path: Path) -> None:
    for text in ("one, and longer\n", "two ünï\n"):
        assert write_scripts(tmp_path, {"gpu01": {"a.sh": text}}) == [tmp_path / "gpu01" / "a.sh"]
    assert (tmp_path / "gpu01" / "a.sh").read_text() == "two ünï\n"


@pytest.mark.parametrize("host", ["../../etc", "..", ".", "/", "a/b", ".hidden", "-rf", "ünï code", "10.0.0.1"])
def test_a_hosts_name_never_leads_out_of_the_folder(tmp_path: Path, host: str) -> None:
    (written,) = write_scripts(tmp_path / "in", {host: {"a.sh": "x"}})
    assert written.resolve().parent.parent == (tmp_path / "in").resolve()


def test_two_hosts_never_share_a_folder() -> None:
    names = ["a/b", "a_b", ".a", "a", "..", "_", "%2F", "a%2Fb", "A"]
    assert len({safe_name(name) for name in names}) == len(names)
