"""What is kept of a host's files before a change, and put back where it fails."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from flagscale_deploy.remote.deployment import before_change


def write(directory: Path, **texts: str) -> None:
    """Write files; `__` in a name is a slash."""
    for name, text in texts.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def listing(directory: Path) -> dict[str, str]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(directory)): path.read_text() for path in paths}


def deployed(directory: Path) -> Path:
    write(directory, scripts__a="a1", scripts__b="b1", scripts__notify="n1", secrets__env="s1", app__program__x="x1",
          logs__a="log")  # fmt: skip
    for name in ("a", "b"):
        (directory / "scripts" / name).chmod(0o700)
    (directory / "scripts/notify").rename(directory / "scripts/notify.sh")
    return directory


def test_scripts_secrets_and_the_program_are_kept_once_with_their_modes(tmp_path: Path) -> None:
    before_change.keep(deployed(tmp_path))
    kept = tmp_path / before_change.FOLDER
    first = listing(kept)
    assert sorted(first) == ["app/program/x", "scripts/a", "scripts/b", "scripts/notify.sh", "secrets/env"]
    assert stat.S_IMODE((kept / "scripts/a").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (kept, *kept.rglob("*")) if path.is_dir()} == {0o700}
    write(tmp_path, scripts__a="a2")
    before_change.keep(tmp_path)
    assert listing(kept) == first


def test_named_scripts_and_all_secrets_come_back(tmp_path: Path) -> None:
    before_change.keep(deployed(tmp_path))
    write(tmp_path, scripts__a="a2", scripts__b="b2", scripts__new="2", secrets__env="s2", secrets__tls="2",
          app__program__x="x2", app__program__y="2", app__z="2")  # fmt: skip
    (tmp_path / "scripts/notify.sh").write_text("n2")
    for _ in range(2):
        before_change.restore(tmp_path, ["a", "new", "../secrets/env"])
        assert {name: text for name, text in listing(tmp_path).items() if not name.startswith("before")} == {
            "app/program/x": "x1", "logs/a": "log", "scripts/a": "a1", "scripts/b": "b2", "scripts/new": "2",
            "scripts/notify.sh": "n1", "secrets/env": "s1",
        }  # fmt: skip
    assert stat.S_IMODE((tmp_path / "scripts/a").stat().st_mode) == 0o700


def test_a_script_that_runs_is_replaced_and_not_written_into(tmp_path: Path) -> None:
    """Bash reads a script as it goes on."""
    before_change.keep(deployed(tmp_path))
    with (tmp_path / "scripts/a").open() as running:
        (tmp_path / "scripts/b").write_text("longer than it was")
        before_change.restore(tmp_path, ["a", "b"])
        assert os.fstat(running.fileno()).st_ino != (tmp_path / "scripts/a").stat().st_ino
    assert (tmp_path / "scripts/b").read_text() == "b1"


def test_nothing_comes_back_where_nothing_is_kept(tmp_path: Path) -> None:
    before_change.forget(deployed(tmp_path))
    before = listing(tmp_path)
    with pytest.raises(RuntimeError, match="was not kept"):
        before_change.restore(tmp_path, ["a"])
    assert listing(tmp_path) == before


def test_what_was_not_copied_to_the_end_counts_as_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full, say."""
    deployed(tmp_path)
    (tmp_path / "secrets/env").rename(tmp_path / "elsewhere")
    monkeypatch.setattr(os, "fchmod", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        before_change.keep(tmp_path)
    monkeypatch.undo()
    assert not (tmp_path / before_change.FOLDER).exists()
    (tmp_path / "elsewhere").rename(tmp_path / "secrets/env")
    before_change.keep(tmp_path)
    assert (tmp_path / before_change.FOLDER / "secrets/env").read_text() == "s1"
    before_change.forget(tmp_path)
    before_change.forget(tmp_path)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(before_change.FOLDER)]


def test_no_link_is_followed(tmp_path: Path) -> None:
    directory, precious = deployed(tmp_path / "state"), tmp_path / "precious"
    write(precious, scripts__a="p", env="p", x="p")
    (directory / "secrets/link").symlink_to(precious / "env")
    (directory / "app/program/link").symlink_to(precious)
    os.mkfifo(directory / "app/fifo")
    before_change.keep(directory)
    kept = directory / before_change.FOLDER
    assert not [path for path in kept.rglob("*") if path.is_symlink() or "link" in path.name or path.name == "fifo"]
    (directory / "app/program/x").unlink()
    (directory / "app/program/x").symlink_to(precious / "x")
    before_change.restore(directory, [])
    assert (directory / "app/program/x").read_text() == "x1"
    assert not (directory / "app/program/link").is_symlink()
    (directory / "scripts").rename(tmp_path / "away")
    (directory / "scripts").symlink_to(precious / "scripts")
    with pytest.raises(RuntimeError, match="is a link"):
        before_change.restore(directory, ["a"])
    before_change.forget(directory)
    kept.symlink_to(precious)
    with pytest.raises(RuntimeError, match="was not kept"):
        before_change.restore(directory, [])
    before_change.forget(directory)
    assert listing(precious) == {"env": "p", "scripts/a": "p", "x": "p"}
