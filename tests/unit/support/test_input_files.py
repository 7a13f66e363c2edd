"""Files that users name: regular ones of a bounded size, and pipes of the shell."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flagscale_deploy.errors import InputError
from flagscale_deploy.support import input_files
from flagscale_deploy.support.input_files import read_bytes, read_text


def unreadable(path: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        read_text(path)
    (fault,) = caught.value.faults
    assert fault.where.startswith(str(path))
    assert fault.remedy
    return fault.problem


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (Path.mkdir, "is a folder"),
        (os.mkfifo, "is a named pipe"),
        (make_socket, "is a socket"),
        (make_sparse, "is larger than 4.0 MiB"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"a\n\0"), "holds a NUL byte"),
        (lambda path: path.write_bytes(b"a: \xff"), "is not text in UTF-8: invalid start byte at byte 3"),
        (lambda path: path.write_bytes(b"\xed\xa0\x80"), "is not text in UTF-8"),
        (lambda path: path.write_text("hosts: [a]", encoding="utf-16"), "is text in UTF-16"),
        (lambda _path: None, "does not exist"),
    ],
)
def test_what_is_no_text_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], object], problem: str) -> None:
    make(tmp_path / "x")
    assert unreadable(tmp_path / "x").startswith(problem)


@pytest.mark.parametrize("path", ["a\0b", "\udcff", "x" * 5000, "x/" * 5000])
def test_a_path_that_no_file_can_have_is_refused(path: str) -> None:
    with pytest.raises(InputError):
        read_text(path)


def test_text_loses_its_mark_and_its_carriage_returns(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(tmp_path / "x") == "a\nb\nc\n"
    assert read_text("/dev/null") == ""
    assert "MemTotal" in read_text("/proc/meminfo")


def test_a_pipe_of_the_shell_is_read_to_its_end() -> None:
    receiver, sender = os.pipe()

    def write() -> None:
        with os.fdopen(sender, "wb") as file:
            file.write(b"x" * 200_000)

    writer = threading.Thread(target=write)
    writer.start()
    assert len(read_text(f"/dev/fd/{receiver}")) == 200_000
    writer.join()
    os.close(receiver)


def test_a_pipe_is_bounded_in_time_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_files, "PIPE_SECONDS", 0.05)
    receiver, sender = os.pipe()
    os.write(sender, b"x" * 100)
    assert unreadable(f"/dev/fd/{receiver}") == "did not end within 0.05 s"
    os.write(sender, b"x" * 100)
    with pytest.raises(InputError, match="is larger than 50 bytes"):
        read_bytes(f"/dev/fd/{receiver}", 50)
    with pytest.raises(InputError, match="is a named pipe"):
        read_bytes(f"/dev/fd/{receiver}", pipes=False)
    os.close(receiver)
    os.close(sender)
