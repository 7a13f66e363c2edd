"""What a user may do on a host, tried on this machine and read from recorded mounts."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from flagscale_deploy.remote.system import limits
from tests.other_user import as_nobody, needs_root

PROC = "proc /proc proc rw,nosuid,nodev,noexec,relatime{} 0 0\n"
OTHERS = "/dev/sda1 / ext4 rw,relatime 0 0\ntmpfs /proc/acpi tmpfs ro,relatime 0 0\n"


def test_limits_are_the_hard_ones() -> None:
    observed = limits.observe(os.path.expanduser("~"))
    assert observed["open_files"] == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert observed["locked_memory"] == resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    assert resource.RLIM_INFINITY == -1


def test_what_can_be_written_stays_as_it_was(tmp_path: Path) -> None:
    assert limits.unwritable([str(tmp_path)]) == []
    assert list(tmp_path.iterdir()) == []


def test_where_no_file_can_be_without_a_name_one_with_a_name_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O_DIRECTORY alone, as a file system without O_TMPFILE sees it: opening a directory for writing is EISDIR."""
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    assert limits.unwritable([str(tmp_path), "/proc/self"]) == ["/proc/self"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_or_lets_nothing_be_made_is_unwritable(tmp_path: Path) -> None:
    places = [str(tmp_path / "missing"), "/proc/self"]
    assert limits.unwritable([*places, str(tmp_path)]) == places


@needs_root
def test_a_directory_of_others_is_unwritable(tmp_path: Path) -> None:
    assert as_nobody(lambda: limits.unwritable(["/root", "/dev/shm"])) == ["/root"]


@needs_root
def test_a_file_system_that_is_read_only_is_unwritable_for_root_too(tmp_path: Path) -> None:
    code = f"from flagscale_deploy.remote.system import limits; print(limits.unwritable([{str(tmp_path)!r}]))"
    mount = 'mount -t tmpfs -o ro tmpfs "$1" && exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, code],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == str([str(tmp_path)]), done.stderr


@pytest.mark.parametrize(
    ("options", "hidden"),
    [
        ("", False),
        (",hidepid=0", False),
        (",hidepid=off", False),
        (",hidepid=1", True),
        (",hidepid=2", True),
        (",hidepid=invisible", True),  # Linux 5.8 and later
        (",hidepid=ptraceable", True),
        (",gid=27,hidepid=invisible", False),
        (",gid=28,hidepid=2", True),
    ],
)
def test_hidepid_hides_from_all_but_its_group(options: str, hidden: bool) -> None:
    assert limits.hides(OTHERS + PROC.format(options), [1000, 27]) is hidden


def test_of_several_mounts_the_last_is_seen() -> None:
    assert limits.hides(PROC.format(",hidepid=2") + PROC.format(""), [1000]) is False


def test_root_sees_everyone_and_so_does_a_user_here() -> None:
    assert limits.sees_everyone()
    if os.geteuid() == 0:
        assert as_nobody(limits.sees_everyone)


@needs_root
def test_a_user_whose_proc_hides_others_sees_not_everyone() -> None:
    code = "from flagscale_deploy.remote.system import limits; print(limits.sees_everyone())"
    imports, _, act = code.partition("; ")
    drop = f"{imports}; import os; os.setgroups([]); os.setgid(65534); os.setuid(65534); {act}"
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-c",
         'mount -t proc -o hidepid=2 proc /proc && "$1" -c "$2"; "$1" -c "$3"', "sh", sys.executable, drop, code],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["False", "True"], done.stderr
