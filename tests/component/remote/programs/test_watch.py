"""The log of an instance that starts, as `watch` sends it."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.programs import watch
from flagscale_deploy.remote.wire import PREFIX
from tests.component.remote.living import Home
from tests.component.remote.stand_in import HEALTHY, stand_in


def sent(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [json.loads(line[len(PREFIX) :])["lines"] for line in capsys.readouterr().out.splitlines()]


def test_of_a_log_that_grows_too_fast_the_last_is_sent_and_how_much_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "engine.log"
    path.write_text("first\n")
    with path.open("rb", buffering=0) as file, path.open("ab") as log:
        lines = watch.Lines(file)
        lines.send_new()
        assert sent(capsys) == [["first"]]
        log.write(b"x" * 100 + b"\n")
        log.write((b"y" * 99 + b"\n") * (64 << 10))
        log.write(b"last\n")
        log.flush()
        lines.send_new()
        lines.send_new(last=True)
    messages = sent(capsys)
    assert messages[0] == [
        f"[{(6400 << 10) + 106 - watch.KEPT_BYTES} bytes of the log are left out here: it grows too fast]"
    ]
    assert messages[-1][-1] == "last"
    assert sum(len(line) + 1 for message in messages[1:] for line in message) == watch.KEPT_BYTES


def test_an_orphan_that_writes_without_end_is_not_read_without_end(capsys: pytest.CaptureFixture[str]) -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return b"z\n" * (size // 2)

        def tell(self) -> int:
            return 0

        def fileno(self) -> int:
            return 0

    watch.Lines(Endless()).send_new(last=True)  # type: ignore[arg-type]
    assert sum(map(len, sent(capsys))) <= watch.BURST


def test_a_long_line_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "engine.log"
    path.write_bytes(b"a" * (200 << 10) + b"\nb\n")
    with path.open("rb", buffering=0) as file:
        watch.Lines(file).send_new()
    assert [len(line) for message in sent(capsys) for line in message] == [watch.LONGEST_LINE, 1]


@pytest.mark.parametrize(("hold", "why"), [(True, " has no reply yet"), (False, " fails: ")])
def test_an_engine_that_is_healthy_and_makes_no_token_is_not_called_unreachable(
    home: Home, tmp_path: Path, hold: bool, why: str
) -> None:
    replies = {"/health": HEALTHY, "/v1/completions": ""}
    with stand_in(tmp_path, f"{home.deployment}/r1", replies=replies, hold=hold) as engine:
        asked: Any = {"deployment": home.deployment, "host": home.host, "url": engine.url, "model": "m"}
        asking = watch.EnginePoll(asked)
        deadline = time.monotonic() + 60
        while f"/health is 200, but a one-token completion{why}" not in asking.why:
            assert time.monotonic() < deadline, asking.why
            time.sleep(0.05)
        asking.answered = "enough"  # ends the thread
