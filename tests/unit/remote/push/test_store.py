"""What a receiver makes of a tree: nothing outside its directory, and no special mode, whatever the tree says."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from flagscale_deploy.remote.push import hashes
from flagscale_deploy.remote.push.hashes import to_text
from flagscale_deploy.remote.push.intake import CorruptError, Intake
from flagscale_deploy.remote.push.place import make_directories, open_private, open_root, part_of_another_user, root_of
from flagscale_deploy.remote.push.store import Store
from flagscale_deploy.remote.push.tree import STAGING, block_count
from flagscale_deploy.remote.push.validate import checked_tree_of_operator
from tests.unit.remote.push.test_validate import EXAMPLES
from tests.unit.remote.push.trees import CONTENT, entry, hostile_trees, is_harmless, tree


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def receive(root: Path, sent: Any) -> Store:
    """Receive a tree as the host's program does, with the content of files where there is one. Raises ValueError."""
    taken = checked_tree_of_operator(sent)
    store = Store(os.fsencode(os.path.realpath(root)), taken, "gpu01")
    content = [CONTENT.get(file["path"], b"")[: file["size"]] for file in store.files]
    digests = [
        hashlib.sha256(data).digest() if len(data) == file["size"] > 0 else bytes(32 * block_count(file["size"]))
        for data, file in zip(content, store.files)  # noqa: B905 (Python 3.8)
    ]
    store.look(False, hashes.silent)
    store.compare([to_text(digest) for digest in digests])
    store.prepare(hashes.silent)
    for number, piece in enumerate(store.pieces):
        with contextlib.suppress(CorruptError), Intake(store, number) as intake:
            for span in piece:
                intake.take(memoryview(content[span.file][span.offset :][: span.length]))
            intake.end()
    store.finish()
    return store


def statuses(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for directory, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = Path(directory) / name
            yield path, path.lstat()


def test_a_tree_arrives_with_its_modes(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        receive(tmp_path / "srv/models/tiny", tree())
    finally:
        os.umask(old)
    root = tmp_path / "srv/models/tiny"
    assert (root / "model.bin").read_bytes() == (root / "sub/link").read_bytes() == CONTENT["model.bin"]
    modes = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path, _ in statuses(tmp_path / "srv")
    }
    assert {path: mode for path, mode in modes.items() if mode != 0o755} == {
        f"srv/models/tiny/{path}": 0o644 for path in ("model.bin", "sub/link", "sub/deep/none")
    }


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(sent=hostile_trees())
def test_nothing_is_written_outside_and_no_special_mode_is_ever_set(sent: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        outer = Path(os.path.realpath(name))
        (outer / "outside").mkdir()
        (outer / "outside/file").write_text("precious")
        root = outer / "dest/models"
        with contextlib.suppress(ValueError, OSError):
            receive(root, sent)
        assert {path.name for path in outer.iterdir()} <= {"outside", "dest"}
        assert [path.read_text() for path in (outer / "outside").iterdir()] == ["precious"]
        assert {path.name for path in (outer / "dest").glob("*")} <= {"models"}
        for path, status in statuses(outer / "dest"):
            if stat.S_ISLNK(status.st_mode):
                assert os.path.commonpath([os.path.realpath(path), root]) == str(root), path
            else:
                assert is_harmless(stat.S_IMODE(status.st_mode)), path


@pytest.mark.parametrize("kept", ["/etc", "../..", "sub/../../x"])
def test_a_link_that_leads_out_is_made_only_if_the_operator_named_it(tmp_path: Path, kept: str) -> None:
    link = entry("out", "link", target=kept)
    with pytest.raises(ValueError, match="leads out"):
        receive(tmp_path / "models", tree(link))
    receive(tmp_path / "models", tree(link, outside=["out"]))
    assert os.readlink(tmp_path / "models/out") == kept


def test_a_tree_larger_than_the_disk_leaves_no_file(tmp_path: Path) -> None:
    huge = tree(entry("huge", "file", size=1 << 43))
    taken = checked_tree_of_operator(huge)
    store = Store(os.fsencode(os.path.realpath(tmp_path / "models")), taken, "gpu01")
    store.look(False, hashes.silent)
    store.compare([to_text(bytes(range(32)) * block_count(file["size"])) for file in store.files])
    store.prepare(hashes.silent)
    assert store.needed() > store.free()
    assert list((tmp_path / "models" / os.fsdecode(STAGING)).iterdir()) == []


def test_a_link_put_in_the_way_meanwhile_is_not_followed(tmp_path: Path) -> None:
    """After DEST was resolved, and before it is used: whoever may write above it could put one there."""
    (tmp_path / "elsewhere/models").mkdir(parents=True)
    (tmp_path / "srv").symlink_to("elsewhere")
    with pytest.raises(OSError, match="Not a directory"):
        open_root(os.fsencode(tmp_path / "srv/models"))
    for path in (tmp_path / "srv/new", tmp_path / "srv/new/deep"):
        with pytest.raises(OSError, match="Not a directory"):
            make_directories(os.fsencode(path), 0o755)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["models"]


def test_another_users_staging_directory_is_not_used(tmp_path: Path) -> None:
    (tmp_path / ".flagscale-push").mkdir()
    root = open_root(os.fsencode(os.path.realpath(tmp_path)))
    try:
        os.close(open_private(root, STAGING))
        if os.geteuid() == 0:
            os.chown(tmp_path / ".flagscale-push", 12345, 12345)
            with pytest.raises(PermissionError, match="another user"):
                open_private(root, STAGING)
    finally:
        os.close(root)


def test_what_a_group_may_write_stays_so_and_is_no_difference(tmp_path: Path) -> None:
    root = tmp_path / "models"
    receive(root, tree())
    (root / "model.bin").chmod(0o664)
    (root / "sub").chmod(0o2775)
    (root / "sub/run.sh").chmod(0o4755)
    store = receive(root, tree())
    assert stat.S_IMODE((root / "model.bin").stat().st_mode) == 0o664
    assert stat.S_IMODE((root / "sub").stat().st_mode) == 0o2775
    assert stat.S_IMODE((root / "sub/run.sh").stat().st_mode) == 0o755
    assert store.have == set(range(len(store.pieces)))


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of another user: needs root")
@pytest.mark.parametrize("below", ["", "/sub/tiny"])
@pytest.mark.parametrize("kind", ["link", "link to a link", "directory", "relative link"])
def test_nobody_leads_a_push_elsewhere_by_taking_its_name_in_a_shared_place(
    tmp_path: Path, kind: str, below: str
) -> None:
    """The kernel follows no link of others in /tmp (protected_symlinks); realpath does."""
    shared, home = tmp_path / "shared", tmp_path / "home"
    for folder in (shared, home):
        (folder / "sub").mkdir(parents=True)
    shared.chmod(0o1777)
    taken = shared / "qwen"
    if kind == "directory":
        taken.mkdir()
    else:
        taken.symlink_to("../home" if kind == "relative link" else home)
    for single in (False, True):
        assert root_of(str(taken) + below, single)[1] == ""  # the user's own
        os.chown(taken, 65534, 65534, follow_symlinks=False)
        named = taken
        if kind == "link to a link":
            named = tmp_path / "own"
            named.unlink() if named.is_symlink() else None
            named.symlink_to(taken)
        root, why = root_of(str(named) + below, single)
        assert (root, why) == (
            b"", f"{taken} is another user's, and everybody may write to {shared}: name another directory",
        )  # fmt: skip
        os.chown(taken, 0, 0, follow_symlinks=False)
    os.chown(shared, 65534, 65534)
    os.chown(taken, 65534, 65534, follow_symlinks=False)
    assert root_of(str(taken) + below, False)[1] == ""  # of the one whose directory it is
    assert not [name for name in os.listdir(shared) if name.endswith(".new")]


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of another user: needs root")
def test_nobody_takes_the_name_between_the_look_and_the_first_directory(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    assert root_of(str(shared / "models/tiny"), False)[1] == ""
    (shared / "models").mkdir()
    os.chown(shared / "models", 65534, 65534)
    with pytest.raises(PermissionError, match="is another user's"):
        receive(shared / "models/tiny", tree())


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert part_of_another_user(str(tmp_path / "a/x")) == ""
