from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flagscale_deploy.cli import cli
from flagscale_deploy.errors import InterruptedByUser, RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport import local
from flagscale_deploy.transport.base import Ends, Outcome, run
from flagscale_deploy.transport.local import LocalConnection
from flagscale_deploy.transport.ssh_notes import NOTES

HERE = LocalConnection(Host("here", "localhost", connection="local"))


def here(command: str, *, stdin: bytes = b"", timeout: float = 20, cancelled: threading.Event | None = None) -> Outcome:
    return run(HERE, command, stdin=stdin, timeout=timeout, cancelled=cancelled)


def test_both_streams_and_the_status_are_data() -> None:
    ended = here("cat; echo err >&2; exit 3", stdin=b"in\0put")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (3, b"in\0put", b"err\n")
    assert 0 < ended.elapsed < 60


def test_much_output_on_both_streams_at_once() -> None:
    ended = here("for at in 1 2 3; do head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; done")
    assert (len(ended.stdout), len(ended.stderr)) == (900000, 900000)


def test_a_program_that_reads_nothing_does_not_break_us() -> None:
    assert here("exit 4", stdin=b"x" * 1_000_000).exit_code == 4


def test_a_program_that_does_not_read_its_input_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "SEND_SECONDS", 0.2)
    monkeypatch.setattr(local, "PROGRAM_GRACE_SECONDS", 0.1)
    with pytest.raises(RemoteError, match="read none of its input"):
        here("sleep 60", stdin=b"x" * 1_000_000)


def test_output_that_closes_early() -> None:
    ended = here("exec >&- 2>&-; sleep 0.2; exit 5")
    assert (ended.exit_code, ended.stdout) == (5, b"")


def test_past_the_deadline_it_is_an_error_that_names_host_and_time() -> None:
    began = time.monotonic()
    with pytest.raises(RemoteError) as raised:
        here("sleep 60", timeout=0.3)
    assert raised.value.problem == "no answer within 0.3 s"
    assert raised.value.host == "here"
    assert time.monotonic() - began < 30


def test_what_a_command_started_ends_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(RemoteError):
        here(f"sh -c 'echo $$ > {pid}; exec sleep 600'; echo done", timeout=0.5)
    left = int(pid.read_text())
    end = time.monotonic() + 60
    while alive(left) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive(left)


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in ("Z", "X")


def test_cancelling_ends_the_wait() -> None:
    cancelled = threading.Event()
    threading.Timer(0.1, cancelled.set).start()
    began = time.monotonic()
    with pytest.raises(InterruptedByUser):
        here("cat; exec sleep 60", cancelled=cancelled)
    assert time.monotonic() - began < 30


def test_a_signals_end_is_a_negative_status() -> None:
    assert here("kill -9 $$").exit_code == -9


def test_ctrl_c_at_the_terminal_is_not_for_it() -> None:
    session = int(here("read -r stat < /proc/self/stat; echo $stat").stdout.split()[5])
    assert session != os.getsid(0)


def test_no_descriptor_is_left_open() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    here("true")
    before = count()
    for _ in range(3):
        here("echo a; echo b >&2", stdin=b"x")
    assert count() == before


def test_there_is_nothing_to_open_or_close() -> None:
    HERE.open()
    HERE.close()
    assert here("echo again").stdout == b"again\n"


@pytest.mark.parametrize("size", [0, 5, 10, 11, 1000, 100_000])
@pytest.mark.parametrize("at_once", [1, 7, 65536])
def test_of_much_output_beginning_and_end_are_kept_and_told(size: int, at_once: int) -> None:
    data = bytes(at % 251 for at in range(size))
    ends = Ends(10)
    for at in range(0, size, at_once):
        ends.add(data[at : at + at_once])
    kept = ends.kept()
    if size <= 10:
        assert (kept, ends.cut) == (data, 0)
    else:
        assert kept == data[:5] + f"\n[flagscale-deploy: {size - 10} bytes cut]\n".encode() + data[-5:]
        assert ends.cut == size - 10


def test_endless_output_is_kept_in_bounded_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ended = run(HERE, "head -c 300M /dev/zero; head -c 300M /dev/zero >&2", timeout=60, max_output=1 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert ended.cut == 2 * (299 << 20)
    assert len(ended.stdout) < (1 << 20) + 100


def test_endless_output_can_be_interrupted() -> None:
    cancelled = threading.Event()
    threading.Timer(0.2, cancelled.set).start()
    began = time.monotonic()
    with pytest.raises(InterruptedByUser):
        here("yes", timeout=60, cancelled=cancelled)
    assert time.monotonic() - began < 50


def test_endless_output_ends_at_the_deadline() -> None:
    with pytest.raises(RemoteError, match=r"it has not ended within 0\.3 s"):
        here("yes", timeout=0.3)


def exec_here(tmp_path: Path, *words: str) -> Result:
    (tmp_path / "hosts.yaml").write_text(
        'hosts: [{name: here, connection: local, env: {A: "b c"}, before_start: "f() { echo $1 $A; }"}]\n'
    )
    return CliRunner().invoke(cli, ["exec", "-i", str(tmp_path / "hosts.yaml"), *words])


@pytest.mark.parametrize("ignoring", ["", 'trap "" TERM; '], ids=["", "ignores SIGTERM"])
def test_exec_ends_all_that_a_command_started_at_its_time_limit(tmp_path: Path, ignoring: str) -> None:
    pids = tmp_path / "pids"
    result = exec_here(
        tmp_path, "--timeout", "1", f"{ignoring}(echo $$; sleep 600 & echo $!) > {pids}; sleep 600; true"
    )
    assert result.exit_code == 1
    assert "✗ here: the command was not done at its time limit of 1 s; it was ended\n" in result.stderr
    assert "give it more with --timeout" in result.stderr
    left = [int(pid) for pid in pids.read_text().split()]
    end = time.monotonic() + 60
    while any(map(alive, left)) and time.monotonic() < end:
        time.sleep(0.01)
    assert len(left) == 2
    assert not any(map(alive, left))


def test_exec_keeps_the_status_and_gives_no_input(tmp_path: Path) -> None:
    result = exec_here(tmp_path, 'cat; echo "it\'s $0"; exit 7')
    assert (result.exit_code, result.stdout) == (1, "here  it's /bin/sh\n")
    assert "exit status 7" in result.stderr


def test_exec_enters_the_environment_if_asked(tmp_path: Path) -> None:
    assert exec_here(tmp_path, "--env", "f well").stdout == "here  well b c\n"
    assert exec_here(tmp_path, "f well").exit_code == 1


@pytest.mark.parametrize(("words", "shown"), [(["-v"], False), (["-vv"], True)])
def test_a_command_shows_what_it_runs_only_with_two_v(words: list[str], shown: bool, tmp_path: Path) -> None:
    key = "s3cr3t-Key-0123456789"
    (tmp_path / "hosts.yaml").write_text(f"hosts: [{{name: here, connection: local, env: {{VLLM_API_KEY: {key}}}}}]\n")
    handlers, level = list(NOTES.handlers), NOTES.level
    try:
        result = CliRunner().invoke(cli, ["exec", "-i", str(tmp_path / "hosts.yaml"), *words, f"echo {key}"])
    finally:
        NOTES.handlers[:] = handlers
        NOTES.setLevel(level)
    assert result.exit_code == 0, result.output
    assert ("here: runs exec sh -c " in result.stderr) == shown
    assert key not in result.output
