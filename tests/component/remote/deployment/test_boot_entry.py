"""The entry for a reboot: added once, taken away word for word, whatever else stands in the crontab."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagscale_deploy.remote.deployment import boot_entry
from tests.component.remote.living import Home

CRONTAB = """#!/bin/sh
kept=$HOME/crontab
case $1 in
  -l) [ -f "$kept" ] || { echo "no crontab for somebody" >&2; exit 1; }; exec cat "$kept" ;;
  -r) rm "$kept" ;;
  -) exec cat >"$kept" ;;
esac
"""
OTHERS = (
    b'MAILTO=""\n# \xff no UTF-8  \r\n*/5 * * * * date +\\%s\n\n@reboot /bin/bash /other/boot.sh # flagscale-deploy\n'
)


@pytest.fixture
def command(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a `crontab` in front of PATH, without systemctl, and set its home; yield the path of the user's crontab."""
    (tmp_path / "bin").mkdir()
    for name in ("sh", "cat", "rm"):
        (tmp_path / "bin" / name).symlink_to(f"/bin/{name}")
    (tmp_path / "bin/crontab").write_text(CRONTAB)
    (tmp_path / "bin/crontab").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(home.path))
    return home.path / "crontab"


@pytest.mark.parametrize("others", [b"", OTHERS])
def test_a_line_comes_and_goes_and_all_others_stay_byte_for_byte(home: Home, command: Path, others: bytes) -> None:
    if others:
        command.write_bytes(others)
    line = boot_entry.line(home.deployment, home.host)
    assert boot_entry.mechanism(container=False) == ("crontab", "")
    assert boot_entry.edit_crontab(add=line)
    assert not boot_entry.edit_crontab(add=line), "it is there already"
    assert command.read_bytes() == others + line.encode() + b"\n"
    other = boot_entry.line("another", home.host)
    assert boot_entry.edit_crontab(add=other)
    assert boot_entry.remove(home.deployment, home.host) == [f"crontab: {line}"]
    assert command.read_bytes() == others + other.encode() + b"\n"
    boot_entry.remove("another", home.host)
    assert (command.read_bytes() if command.exists() else b"") == others
    assert command.exists() == bool(others), "an empty crontab is none"
    assert boot_entry.remove(home.deployment, home.host) == []


def test_a_crontab_that_cannot_be_read_is_left_alone(home: Home, command: Path, tmp_path: Path) -> None:
    (tmp_path / "bin/crontab").write_text(
        "#!/bin/sh\necho 'You (me) are not allowed to use this program' >&2\nexit 1\n"
    )
    by, why = boot_entry.mechanism(container=False)
    assert (by, why) == ("", "crontab -l: You (me) are not allowed to use this program")
    with pytest.raises(OSError, match="not allowed"):
        boot_entry.edit_crontab(add="x")
    assert boot_entry.remove(home.deployment, home.host) == []


def test_a_host_with_neither_and_a_container_say_so(command: Path, tmp_path: Path) -> None:
    assert "container" in boot_entry.mechanism(container=True)[1]
    (tmp_path / "bin/crontab").unlink()
    assert boot_entry.mechanism(container=False) == (
        "",
        "the user's systemd does not run without a login (lingering), and there is no crontab",
    )


LINES = st.lists(st.binary(max_size=8).filter(lambda line: b"\n" not in line), max_size=5)


@given(LINES, st.sampled_from([b"", b"\n"]))
def test_adding_and_taking_away_is_the_same_as_nothing(lines: list[bytes], end: bytes) -> None:
    content, line = b"\n".join(lines) + end, b"@reboot /bin/bash /x # ours"
    added = boot_entry.with_line(content, line)
    assert line in added.split(b"\n")
    assert boot_entry.with_line(added, line) == added
    ended = content if not content or content.endswith(b"\n") else content + b"\n"
    assert boot_entry.without_line(added, line) == ended


@pytest.mark.parametrize("host", ["gpu01", "a b'c", "100%", "fe80::1"])
def test_the_line_runs_the_script_whatever_the_host_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    r"""As cron hands it to sh: `\%` is a percent sign to it."""
    monkeypatch.setenv("HOME", str(tmp_path / "it's $HOME"))
    script = Path(boot_entry.script("qwen", host))
    script.parent.mkdir(parents=True)
    script.write_text(f"touch {shlex.quote(str(tmp_path / 'ran'))}")
    line = boot_entry.line("qwen", host)
    assert "\n" not in line
    assert line.replace("\\%", "").count("%") == 0
    subprocess.run(["sh", "-c", line.removeprefix("@reboot ").replace("\\%", "%")], check=True, timeout=20)
    assert (tmp_path / "ran").exists()


def test_a_unit_is_written_linked_and_taken_away_with_nothing_else(home: Home, command: Path) -> None:
    other = home.path / ".config/systemd/user/mine.service"
    other.parent.mkdir(parents=True)
    other.write_text("[Unit]\n")
    boot_entry.enable(home.deployment, home.host)
    boot_entry.enable(home.deployment, home.host)
    path = boot_entry.unit_path(home.deployment, home.host)
    link = other.parent / "default.target.wants" / path.name
    assert link.resolve() == path
    text = path.read_text()
    assert f'ExecStart=/bin/bash "{home.state}/scripts/boot.sh"' in text
    assert f"ConditionHost={socket.gethostname()}" in text
    assert boot_entry.remove(home.deployment, home.host) == [str(path)]
    assert [path.name for path in other.parent.iterdir()] == ["mine.service"]


def test_the_user_s_systemd_counts_where_it_lingers(
    command: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin/systemctl").write_text('#!/bin/sh\n[ "$*" = "--user show-environment" ]\n')
    (tmp_path / "bin/systemctl").chmod(0o755)
    monkeypatch.setattr(boot_entry, "LINGER", tmp_path / "linger")
    assert boot_entry.mechanism(container=False)[0] == "crontab"
    (tmp_path / "linger").mkdir()
    (tmp_path / "linger" / getpass.getuser()).touch()
    assert boot_entry.mechanism(container=False) == ("systemd", "")
    assert os.environ["PATH"] == str(tmp_path / "bin")
