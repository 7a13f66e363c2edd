"""Files that are written where a user says: never through a link, and only what is a stream is written to in place."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flagscale_deploy.output.junit import write_junit
from flagscale_deploy.support.file_modes import hand_on, kept_private
from flagscale_deploy.support.paths import refuse_unwritable, write_file
from tests.other_user import as_nobody, needs_root


@pytest.fixture
def shared_memory() -> Iterator[Path]:
    folder = Path("/dev/shm") / f"fsd-test-{os.getpid()}-{os.urandom(4).hex()}"
    folder.mkdir()
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_a_link_in_dev_shm_is_replaced_and_not_followed(shared_memory: Path, tmp_path: Path) -> None:
    target, path = tmp_path / "target", shared_memory / "j.xml"
    target.write_text("mine")
    target.chmod(0o600)
    path.symlink_to(target)
    with kept_private():
        refuse_unwritable(path, "the file")
        write_junit("q", [], path, str)
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("mine", 0o600)
    assert path.is_file()
    assert not path.is_symlink()


@pytest.mark.parametrize("name", ["j.xml.new", ".j.xml.new", "j.xml.tmp"])
def test_what_has_a_name_beside_it_keeps_no_file_from_being_written(tmp_path: Path, name: str) -> None:
    """Another user's in /tmp, or what a command has left that was killed."""
    (tmp_path / name).write_text("theirs")
    refuse_unwritable(tmp_path / "j.xml", "the file")
    write_file(tmp_path / "j.xml", "text", "the file")
    assert {path.name for path in tmp_path.iterdir()} == {name, "j.xml"}


@pytest.mark.parametrize("kind", ["file", "folder", "device", "nothing"])
def test_the_mode_of_what_a_link_leads_to_stays(tmp_path: Path, kind: str) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    if kind == "folder":
        target.mkdir(mode=0o700)
    elif kind == "file":
        target.touch(0o600)
    elif kind == "device":
        target = Path("/dev/null")
    link.symlink_to(target)
    before = target.stat().st_mode if kind != "nothing" else 0
    with kept_private():
        hand_on(link)
    assert kind == "nothing" or target.stat().st_mode == before


def test_a_file_and_a_folder_get_the_users_mode(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "file").touch(0o600)
    before = os.umask(0o027)
    try:
        with kept_private():
            hand_on(tmp_path / "folder")
            hand_on(tmp_path / "file")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("folder", "file")]
    assert modes == [0o750, 0o640]


@needs_root
def test_a_pipe_of_another_user_is_replaced(tmp_path: Path) -> None:
    """Nobody else reads what is written, and nobody waits for a reader who never comes."""
    shared = Path(tempfile.mkdtemp(dir="/dev/shm"))
    shared.chmod(0o777)
    try:
        path = shared / "report"
        as_nobody(lambda: os.mkfifo(path, 0o666))
        refuse_unwritable(path, "the file")
        write_file(path, "text", "the file")
        assert (path.read_text(), path.stat().st_uid) == ("text", os.getuid())
    finally:
        shutil.rmtree(shared)


@needs_root
def test_a_folder_of_another_user_keeps_its_mode(tmp_path: Path) -> None:
    """CI may give a folder that it lets us write in."""
    shared = Path(tempfile.mkdtemp(dir="/dev/shm"))
    shared.chmod(0o777)

    def hand() -> str:
        with kept_private():
            hand_on(shared)
        return "done"

    try:
        assert as_nobody(hand) == "done"
        assert stat.S_IMODE(shared.stat().st_mode) == 0o777
    finally:
        shutil.rmtree(shared)


def test_streams_are_written_to_in_place(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for path in (Path(f"/dev/fd/{write}"), Path(f"/proc/self/fd/{write}"), tmp_path / "pipe", Path(os.devnull)):
        refuse_unwritable(path, "the file")
        write_file(path, "text", "the file")
    assert (os.read(read, 100), os.read(reader, 100)) == (b"texttext", b"text")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    for descriptor in (read, write, reader):
        os.close(descriptor)
