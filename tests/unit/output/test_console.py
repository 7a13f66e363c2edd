"""The only writer to the terminal: what it lets through, and how it fits."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from flagscale_deploy import api
from flagscale_deploy.api.cases import Case
from flagscale_deploy.api.smoke import Smoke
from flagscale_deploy.checks.types import Verdict
from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.deploy.bring_up import BroughtUp, Failure, RunFailedError
from flagscale_deploy.deploy.run_folder import RunFolder
from flagscale_deploy.deploy.server_status import InstanceStatus
from flagscale_deploy.deploy.status import HostStatus, Status
from flagscale_deploy.deploy.stop import HostStop, StopReport
from flagscale_deploy.diagnosis.find import Diagnosis
from flagscale_deploy.errors import HostError, RemoteError, UnreachableError
from flagscale_deploy.events import Event
from flagscale_deploy.facts.model import Facts, Observation
from flagscale_deploy.logs import Collected
from flagscale_deploy.output.check import show_check
from flagscale_deploy.output.console import LONGEST_CELL, Console, Progress
from flagscale_deploy.output.hosts import show_inventory, show_outcomes
from flagscale_deploy.output.logs import line_printer, show_collected
from flagscale_deploy.output.plan import show_plan
from flagscale_deploy.output.run import curl, run_json, show_run, show_run_failure
from flagscale_deploy.output.smoke import show_smoke
from flagscale_deploy.output.status import cut, show_status, show_watch
from flagscale_deploy.output.stop import show_stop
from flagscale_deploy.output.streamed import StreamedText
from flagscale_deploy.output.tables import aligned, folding
from flagscale_deploy.secrets import HIDDEN, Redactor
from flagscale_deploy.transport.base import Outcome
from tests.unit.deploy.given import PLAN
from tests.unit.plan.given import facts, host, inventory

ENDS = ("\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
FORGED = "".join(f"{end}✗ gpu09: forged{end}    → forged" for end in ENDS)
EVIL = f"[/evil][red]x[/red] \x1b]0;title\x07\x1b[2J\x9b31m\rover\x08\u202e\ud800 :smile: s3cret{FORGED}"
"""Markup, a window's title, a cleared screen, a C1 sequence, text over text, lines of our own kind, and a secret."""

FORBIDDEN = ("\x1b", "\x07", "\x9b", "\r", "\x08", "\u202e", "s3cret")


HOSTILE_NAME = 'it\'s $(x) "q" ü'


class Terminal:
    """A console that writes to memory, as wide as a test wants it."""

    def __init__(self, width: int = 200, **settings: bool) -> None:
        self.console = Console(redactor=Redactor(["s3cret"]), **settings)
        self.out, self.err = io.StringIO(), io.StringIO()
        self.console.out.file, self.console.err.file = self.out, self.err
        self.console.out.width = self.console.err.width = width

    @property
    def text(self) -> str:
        return self.out.getvalue() + self.err.getvalue()


def harmless(text: str) -> None:
    for sequence in FORBIDDEN:
        assert sequence not in text
    assert not [line for line in text.splitlines() if re.match(r" {0,8}(✗ gpu09|→ forged)", line)]
    text.encode()


@pytest.mark.parametrize("method", ["print", "error", "note"])
def test_a_line_is_what_it_is_without_what_plays_with_the_terminal(method: str) -> None:
    terminal = Terminal()
    getattr(terminal.console, method)(f"a\tb {EVIL}")
    harmless(terminal.text)
    assert "[/evil][red]x[/red] \\x1b]0;title\\x07" in terminal.text
    assert ":smile:" in terminal.text
    assert "[REDACTED]" in terminal.text


def test_colours_of_logs_are_dropped_and_words_stay() -> None:
    terminal = Terminal()
    terminal.console.print("\x1b[36m(EngineCore pid=1)\x1b[0m ready ünï 模型")
    assert terminal.text == "(EngineCore pid=1) ready ünï 模型\n"


@pytest.mark.parametrize("width", [60, 200])
def test_a_line_is_never_wrapped_and_a_table_folds(width: int) -> None:
    long = "word " * 60
    terminal = Terminal(width)
    terminal.console.print(long)
    assert terminal.text == long + "\n"
    terminal = Terminal(width)
    terminal.console.table("title", ("A", "B"), [("x", long), (7, None)])
    assert all(len(line) <= width for line in terminal.text.splitlines())
    assert terminal.text.split() == ["title", "A", "B", "x", *long.split(), "7", "None"]


def test_json_is_json_whatever_it_holds_and_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    Console(redactor=Redactor(["s3cret"])).json({"a": "ünï \x1b \n s3cret", "path": Path("/x")})
    assert json.loads(capsys.readouterr().out) == {"a": "ünï \x1b \n [REDACTED]", "path": "/x"}


@settings(deadline=None)
@given(st.text())
def test_json_is_what_it_was_and_a_terminal_sees_nothing_of_it(text: str) -> None:
    terminal = Terminal()
    terminal.console.json({"a": [text], text: 1})
    assert json.loads(terminal.out.getvalue()) == {"a": [text], text: 1}
    assert all(char == "\n" or char.isprintable() for char in terminal.out.getvalue())


CONTENT = {
    "schema": 1,
    "host": "gpu01",
    "ok": True,
    "none": None,
    "port": 12345678,
    "lines": ["a", "b"],
    "seconds": 0.125,
}


@pytest.mark.parametrize(
    "secret", ["true", "null", "host", "12345678", "0.125", "4567", '": "', '",', "], ", 'schema": 1', "\\"]
)
def test_json_stays_json_whatever_a_secret_is(secret: str) -> None:
    content = {**CONTENT, "text": f"a {secret} b", "list": [f"{secret}", f"x{secret}"]}
    terminal = Terminal()
    terminal.console.redactor = Redactor([secret])
    terminal.console.json(content)
    terminal.console.write(terminal.console.json_lines([content, content]))
    decoder, text, documents = json.JSONDecoder(), terminal.out.getvalue(), []
    while text.strip():
        document, at = decoder.raw_decode(text := text.strip())
        documents.append(document)
        text = text[at:]
    assert len(documents) == 3
    for document in documents:
        assert len(document) == len(content)
        assert document.get("text", HIDDEN) in (f"a {HIDDEN} b", HIDDEN) or len(secret) < 4
        assert len(document["list"]) == 2 or len(secret) < 4


PEM = [
    "-----BEGIN PRIVATE KEY-----",
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC",
    "c2VjcmV0IHNlY3JldA==",
    "-----END PRIVATE KEY-----",
]


@pytest.mark.parametrize("key", [PEM, PEM[:3], PEM[:1]], ids=["whole", "cut", "its first line"])
def test_a_private_key_in_a_log_hides_its_own_lines_and_no_others(key: list[str]) -> None:
    """Whoever sends a server a prompt can have it log the first line."""
    lines = ["INFO one", *key, '11:05 two: 2, "x"', "three"]
    console = Console()
    texts = [
        json.loads(line) for line in console.json_lines({"host": "a", "line": line} for line in lines).splitlines()
    ]
    assert [text["host"] for text in texts] == ["a"] * len(lines)
    for shown in ([text["line"] for text in texts], console.clean_lines(lines)):
        assert (shown[0], shown[-1]) == ("INFO one", "three")
        assert len(shown) == len(lines)
        assert not any(line in "\n".join(shown) for line in PEM[:3])


@settings(deadline=None)
@given(st.lists(st.text(), min_size=1))
def test_lines_of_json_are_what_they_were_one_a_line(texts: list[str]) -> None:
    lines = Console().json_lines([{"a": [text], text: 1} for text in texts]).split("\n")
    assert [json.loads(line) for line in lines[:-1]] == [{"a": [text], text: 1} for text in texts]
    assert lines[-1] == ""
    assert all(line.isprintable() for line in lines)


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("ab \n\t\r\x1b[0mü█") | st.characters()), min_size=1))
def test_lines_are_cleaned_together_as_one_by_one(lines: list[str]) -> None:
    console = Console()
    assert console.clean_lines(lines) == [console.clean(line).replace("\n", "\\n") for line in lines]


def test_a_secret_is_hidden_in_lines_that_are_cleaned_together_also_one_of_several_lines() -> None:
    console = Console(redactor=Redactor(["s3cret", "first line\nsecond line"]))
    assert console.clean_lines(["a s3cret b", "c"]) == ["a [REDACTED] b", "c"]
    assert console.clean_lines(["first line", "second line", "c"]) == ["[REDACTED]", "[REDACTED]", "c"]
    assert "s3cret" not in console.json_lines([{"line": "a s3cret b"}])


@settings(deadline=None)
@given(st.text())
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    assert all(char in "\n\t" or char.isprintable() for char in Console().clean(text))


@pytest.mark.parametrize(
    "hidden", ["s3\x1b[1mcr\x1b[0met", "s3\x1b[2Jcret", "s3c\u200bret", "s3c\x00ret", "s3\x1b]0;t\x07cret"]
)
@pytest.mark.parametrize("method", ["print", "error", "note", "text"])
def test_no_character_within_a_secret_hides_it_from_us(method: str, hidden: str) -> None:
    terminal = Terminal()
    getattr(terminal.console, method)(f"a {hidden} b")
    terminal.console.table("", ("A",), [(hidden,)])
    terminal.console.json({"a": [hidden], hidden: 1})
    terminal.console.write(terminal.console.json_lines([{"line": hidden}]))
    assert terminal.text.count("[REDACTED]") == 5
    assert "cret" not in terminal.text


def test_quiet_keeps_results_and_errors() -> None:
    terminal = Terminal(quiet=True)
    terminal.console.note("note")
    with terminal.console.progress("run") as progress:
        progress(Event("s", "running", "gpu01", "going"))
        progress(Event("s", "failed", "gpu01", "broken"))
    terminal.console.print("result")
    terminal.console.error("error")
    assert terminal.out.getvalue() == "result\n"
    assert "note" not in terminal.text
    assert "going" not in terminal.text
    assert "broken" in terminal.err.getvalue()
    assert "error" in terminal.err.getvalue()


def test_progress_in_plain_lines() -> None:
    terminal = Terminal()
    with terminal.console.progress("run") as progress:
        progress(Event("ray-head", "done", "gpu01", "ray_head.sh", elapsed=2.94))
        progress(Event("serve", "progress", "gpu01", "loading weights", 50.0))
        progress(Event("collect", "running"))
        progress(Event("serve", "failed", "gpu01", EVIL))
    harmless(terminal.text)
    lines = terminal.err.getvalue().splitlines()
    assert lines[0].endswith("s ✓ [gpu01] ray-head: ray_head.sh (2.9 s)")
    assert lines[1].endswith("s … [gpu01] serve: loading weights 50%")
    assert lines[2].endswith("s … collect: running")


def test_live_progress_draws_what_is_going_on_and_keeps_what_is_done() -> None:
    terminal = Terminal(100)
    terminal.console.err._force_terminal = True
    with terminal.console.progress(EVIL) as progress:
        assert type(progress).__name__ == "LiveProgress"
        for at in range(40):
            progress(Event("probe", "running", f"gpu{at}", EVIL))
        progress(Event("probe", "done", "gpu1", "8 × H100"))
        progress(Event("probe", "failed", "gpu2", EVIL))
        progress(Event("probe", "note", "", "a note"))
        progress(Event("probe", "done"))
    assert "8 × H100" in terminal.text
    assert "a note" in terminal.text
    for sequence in ("\x07", "\x9b", "\x08", "\u202e", "s3cret", "]0;title\x07"):
        assert sequence not in terminal.text


STATUS = Status(
    "qwen", "unwell", "run-1", "sha256:1", "gpu01", EVIL, 1.0e9, {"nodes": {"10.0.0.1": 8.0}, "missing": [EVIL]},
    (
        HostStatus("gpu01", "running", ("ray-head", "engine"), 14, (0,), 3700.0),
        HostStatus("gpu02", "UNKNOWN", problem=EVIL),
    ),
    (InstanceStatus("qwen/0", EVIL, 0, "ready", "gpu01", ("gpu01",), {"gpu01": (0, 1)}, "http://e/v1", "q", EVIL),),
)  # fmt: skip

STOPPED = StopReport(
    (
        HostStop("gpu01", "survivors", 2, ({"pid": 7, "command": EVIL, "state": "S", "why": EVIL},)),
        HostStop("gpu02", "UNKNOWN", problem=EVIL),
        HostStop("gpu03", "stopped", 3, ports_left=({"port": 1, "pid": None, "command": EVIL},)),
    ),
    {"gpu03": (EVIL,)},
)

OUTCOMES: dict[str, Outcome | HostError] = {
    "gpu01": Outcome(0, EVIL.encode(errors="replace") + b"\xff", b"err", 0.1),
    "gpu02": Outcome(3, b"", b"", 0.1),
    "gpu03": UnreachableError("gpu03", EVIL),
}


def failure(console: Console) -> None:
    diagnosis = Diagnosis("gpu02", "e.log", EVIL, "cause", "remedy")
    failed = Failure(RemoteError("gpu01", EVIL), diagnosis, {"gpu01": 3}, {"gpu02": EVIL}, STOPPED)
    show_run_failure(console, RunFailedError(failed, RunFolder(Path("/out"), str), "qwen"))


def well(console: Console) -> None:
    up = BroughtUp({"qwen/0": 12.3})
    show_run(
        console, api.RunResult(PLAN, None, up, RunFolder(Path("/out"), str), (("http://h/v1", EVIL),), True, {}, 20.0)
    )


def checked(console: Console) -> None:
    observations = {
        "gpu01": Observation("gpu01", facts("gpu01")),
        "gpu02": Observation("gpu02", error=UnreachableError("gpu02", EVIL)),
    }
    show_check(console, api.CheckReport(observations, (Verdict("tcp", "failed", "gpu02", EVIL, EVIL, EVIL),)))


HOSTS = inventory(host("gpu01", user="u", port=22), host("gpu02", type=EVIL))
COLLECTED: dict[str, Collected | HostError] = {
    "gpu01": Collected("gpu01", Path("/o"), (("a", 1234567),), (EVIL,)),
    "gpu02": RemoteError("gpu02", EVIL),
}
SMOKE = Smoke("qwen", Path("/a"), [Case("run", "gpu01", "failed", 1.0, EVIL, (EVIL,))], 5)

VIEWS: dict[str, Callable[[Console], object]] = {
    "status": lambda console: show_status(console, STATUS),
    "stop": lambda console: show_stop(console, STOPPED),
    "plan": lambda console: show_plan(console, replace(PLAN, deployment=EVIL), True),
    "run": well,
    "run that failed": failure,
    "check": checked,
    "exec": lambda console: show_outcomes(console, OUTCOMES, False),
    "hosts": lambda console: show_inventory(console, HOSTS),
    "logs": lambda console: line_printer(console, ["gpu01"], False)("gpu01", f"logs/{EVIL}", ["plain", EVIL]),
    "logs -o": lambda console: show_collected(console, COLLECTED, False),
    "smoke": lambda console: show_smoke(console, SMOKE),
}


@pytest.mark.parametrize("width", [60, 200])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_every_view_is_harmless_at_any_width(view: Callable[[Console], object], width: int) -> None:
    terminal = Terminal(width)
    view(terminal.console)
    assert terminal.text.strip()
    harmless(terminal.text)


@pytest.mark.parametrize("width", [60, 200])
def test_status_says_what_counts(width: int) -> None:
    terminal = Terminal(width)
    show_status(terminal.console, STATUS)
    text = " ".join(terminal.text.split())
    for expected in ("qwen: unwell", "run run-1", "ray-head", "UNKNOWN", "gpu01[0,1]", "1h01m"):
        assert expected in text, text


def test_status_counts_restarts_where_somebody_counts_them() -> None:
    terminal = Terminal()
    (first, *_) = STATUS.instances
    again = [replace(first, restarts=2, last_restart=1.7e9), replace(first, restarts=0), replace(first, restarts=None)]
    show_status(terminal.console, replace(STATUS, instances=tuple(again)))
    assert "RESTARTS" in terminal.text
    assert re.search(r" 2, 11-1\d \d\d:\d\d:\d\d ", terminal.text)
    plain = Terminal()
    show_status(plain.console, STATUS)
    assert "RESTARTS" not in plain.text


MANY = replace(
    STATUS,
    hosts=tuple(
        HostStatus(f"gpu{at:02}", "dead" if at == 17 else "running", ("ray-worker",), 6, (0,), 60.0) for at in range(40)
    ),
    instances=(
        replace(STATUS.instances[0], name="qwen/0", gpus={"gpu01": tuple(range(8)), "gpu02": tuple(range(8))},
                endpoint="http://10.0.0.11:4567/v1", problem=""),
        replace(STATUS.instances[0], name="qwen/1", state="unwell", problem="it does not answer: timed out"),
    ),
    operator="bob@ops", note="", ray=None,
)  # fmt: skip


@pytest.mark.parametrize("height", [12, 24, 80])
def test_a_watch_fits_the_terminal_with_its_time_and_trouble_first(
    height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal(80)
    terminal.console.out._force_terminal, terminal.console.out.height = True, height
    show_watch(terminal.console, MANY)
    seen = Text.from_ansi(terminal.text).plain
    lines = seen.rstrip("\n").split("\n")
    assert len(lines) < height
    assert re.fullmatch(r"qwen: unwell  \(\d\d:\d\d:\d\d\)  run run-1 of .*", lines[0])
    assert seen.index("gpu17") < (seen.index("Instances") if "Instances" in seen else len(seen))
    assert seen.index("timed out") < (seen.index("Instances") if "Instances" in seen else len(seen))
    assert (lines[1] == "Hosts: 39 running, 1 dead") == (height < 80)
    assert ("gpu39" in seen) == (height == 80)
    assert ("more lines: `status` without -w shows all" in seen) == (height == 12)
    assert "http://10.0.0.11:4567/v1" in seen or height == 12


def test_a_watch_is_harmless_at_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for width in (40, 80, 200):
        terminal = Terminal(width)
        terminal.console.out._force_terminal = True
        show_watch(terminal.console, STATUS)
        harmless(re.sub(r"\x1b\[[\d;]*[mHJ]", "", terminal.text.removeprefix("\x1b[2J\x1b[H")))


def test_no_table_breaks_a_url_at_80_columns() -> None:
    terminal = Terminal(80)
    show_status(terminal.console, MANY)
    assert "http://10.0.0.11:4567/v1" in Text.from_ansi(terminal.text).plain


def test_a_url_leaves_room_for_the_other_columns() -> None:
    terminal = Terminal(80)
    rows = [("qwen", "ready", "http://10.0.0.11:4567/v1"), ("llama", "ready", "http://" + "x" * 300)]
    terminal.console.table("", ("NAME", "STATE", "ENDPOINT"), rows)
    shown = Text.from_ansi(terminal.text).plain
    assert all(word in shown for word in ("qwen", "llama", "ready"))


@pytest.mark.parametrize("cell", ["x " * 500_000, ("x " * 1000,) * 500])
def test_a_cell_is_cut(cell: object) -> None:
    """Of a reply of a few MiB a table would have 200,000 lines."""
    terminal = Terminal(80)
    terminal.console.table("", ("NAME", ""), [("qwen", cell)])
    assert len(terminal.text) < 3 * LONGEST_CELL
    assert "more characters)" in " ".join(terminal.text.split())


def test_what_a_watcher_leaves_out_costs_no_more_than_what_it_shows() -> None:
    terminal = Terminal(80)
    lines = ["x" * 200] * 50_000
    began = time.thread_time()
    assert cut(terminal.console, lines, 10, "ps") == [*["x" * 200] * 3, "… 49997 more lines: `ps` without -w shows all"]
    assert time.thread_time() - began < 60


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_lines(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", kind)
    terminal = Terminal(80)
    terminal.console.out._force_terminal = terminal.console.err._force_terminal = True
    assert type(terminal.console.progress("run")) is Progress
    show_watch(terminal.console, MANY)
    assert terminal.text.startswith("── ")
    assert "\x1b[2J" not in terminal.text
    assert "\x1b[H" not in terminal.text


def test_a_plan_tells_a_restart_policy_where_there_is_one() -> None:
    terminal, plain = Terminal(), Terminal()
    show_plan(terminal.console, replace(PLAN, restart=RestartSpec("on-failure", boot=True)), False)
    show_plan(plain.console, PLAN, False)
    lines = [line for line in terminal.text.splitlines() if line.startswith("restart ")]
    assert lines == [
        "restart   servers that die after they were ready: 5 times in a row, after 1 s (x 2, at most 60 s); "
        "engines that have work and make no token for 600 s; "
        "hosts that reboot: their part of the deployment"
    ]
    assert "restart " not in plain.text


def test_exec_ends_with_the_worst_status() -> None:
    terminal = Terminal()
    assert show_outcomes(terminal.console, OUTCOMES, False) == 3
    assert "gpu02: exit status 3" in terminal.text
    assert show_outcomes(terminal.console, {"gpu02": OUTCOMES["gpu02"]}, False) == 1
    assert show_outcomes(terminal.console, {"gpu01": OUTCOMES["gpu01"]}, False) == 0


def test_exec_as_json_keeps_every_host(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_outcomes(Console(), OUTCOMES, True) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["hosts"]["gpu02"]["exit_code"] == 3
    assert list(answer["failed"]) == ["gpu03"]


def test_exec_says_what_was_cut() -> None:
    cut: dict[str, Outcome | HostError] = {"gpu01": Outcome(0, b"ab", b"", 0.1, cut=12345)}
    terminal = Terminal()
    assert show_outcomes(terminal.console, cut, False) == 1
    assert "gpu01: 12,345 bytes of its output were cut (--max-output)" in terminal.text
    as_json = Terminal()
    assert show_outcomes(as_json.console, cut, True) == 1
    assert json.loads(as_json.out.getvalue())["hosts"]["gpu01"]["cut"] == 12345


def test_a_collection_says_what_was_cut_and_ends_with_1_at_a_limit() -> None:
    cut = Collected("gpu01", Path("/o"), (("e", 9),), cut=(("e", 12345),), received=5, older=3)
    terminal = Terminal()
    assert show_collected(terminal.console, {"gpu01": cut}, False) == 0
    for remark in ("cut: 12,345 bytes of e", "3 older files left out", "5 bytes are new"):
        assert remark in terminal.text
    reached = replace(cut, limit="more than 7 bytes: collecting ended there")
    assert show_collected(terminal.console, {"gpu01": reached}, False) == 1
    assert "gpu01: more than 7 bytes" in terminal.err.getvalue()
    as_json = Terminal()
    assert show_collected(as_json.console, {"gpu01": reached}, True) == 1
    answer = json.loads(as_json.out.getvalue())["hosts"]["gpu01"]
    assert (answer["cut"], answer["older"], answer["received"]) == ({"e": 12345}, 3, 5)
    assert answer["limit"].startswith("more than 7 bytes")


def test_log_lines_as_json_are_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    show = line_printer(Console(), ["gpu01"], True)
    show("gpu01", "logs/e.log", ["two\nlines \x1b"])
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"host": "gpu01", "file": "logs/e.log", "line": "two\nlines \x1b"}


def test_log_lines_have_their_colours_on_a_terminal_only() -> None:
    for shown in (False, True):
        terminal = Terminal()
        if shown:
            terminal.console.out = RichConsole(file=terminal.out, force_terminal=True, color_system="standard")
        line_printer(terminal.console, ["gpu01", "gpu002"], False)("gpu01", "logs/e.log", ["one \x1b[31mred", "two"])
        plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.out.getvalue())
        assert plain == "gpu01  e.log one red\ngpu01  e.log two\n"
        assert ("\x1b" in terminal.out.getvalue()) == shown


def test_a_host_cannot_end_a_line_of_its_own_and_begin_one_of_another() -> None:
    terminal = Terminal()
    line_printer(terminal.console, ["gpu01", "gpu02"], False)("gpu01", "e\nf", ["x\ngpu02 e.log all is well"])
    assert terminal.out.getvalue() == "gpu01 e\\nf x\\ngpu02 e.log all is well\n"


def test_a_curl_line_can_be_pasted_whatever_the_names() -> None:
    pasted = curl("http://[fd00::1]:4567/v1", HOSTILE_NAME, secured=True)
    words = subprocess.run(
        ["bash", "-c", f"curl() {{ printf '%s\\0' \"$@\"; }}; VLLM_API_KEY=k\n{pasted}"],
        check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    assert words[0] == "http://[fd00::1]:4567/v1/chat/completions"
    assert words[words.index("-d") - 1] == "Authorization: Bearer k"
    body = json.loads(words[words.index("-d") + 1])
    assert body["model"] == HOSTILE_NAME
    assert "Authorization" not in curl("http://h/v1", "q", secured=False)
    assert "chat/completions --cacert 'my ca.pem' " in curl("https://h/v1", "q", False, "my ca.pem")
    assert "--cacert" not in curl("http://h/v1", "q", False, "ca.pem"), "a router's"


def test_a_run_as_json() -> None:
    up = BroughtUp({"qwen/0": 12.3})
    answer = run_json(
        api.RunResult(
            PLAN, None, up, RunFolder(Path("/out"), str), (("http://h/v1", "q"),), False, {"serve": 3.0}, 20.0
        )
    )
    assert json.loads(json.dumps(answer))["endpoints"] == [{"endpoint": "http://h/v1", "model": "q"}]
    assert answer["verdict"] == "ready"
    again = run_json(api.RunResult(None, STATUS, None, None, (("http://h/v1", "q"),), False))
    assert (again["verdict"], again["run_id"]) == ("already running", "run-1")


def test_an_output_that_is_no_utf_8_does_not_break_us(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    console = Console()
    console.print("ünï ✓ → 模型")
    console.error("✗ →")
    console.json({"a": "ü\ud800"})
    narrow.flush()
    assert b"\\xfcn\\xef" in narrow.buffer.getvalue()


@given(
    rows=st.lists(st.tuples(*[st.text(st.sampled_from("ab é模🙂\u0301\t\n"), max_size=9)] * 3), max_size=4),
    width=st.integers(8, 40),
)
def test_a_table_that_fits_looks_as_rich_would_draw_it(rows: list[tuple[str, str, str]], width: int) -> None:
    columns, cells = ("A", "HÉ", ""), [[Text(a), Text(b, style="green"), Text(c)] for a, b, c in rows]
    fitting = aligned(columns, cells, width)
    if fitting is not None:
        assert drawn(fitting, width) == drawn(folding(columns, cells, width), width)


def drawn(table: Table | Text, width: int) -> list[tuple[str, str]]:
    """Every character as it comes to a terminal, with its style where it can be seen."""
    file = io.StringIO()
    console = RichConsole(file=file, width=width, force_terminal=True, highlight=False, emoji=False)
    console.print(table, soft_wrap=isinstance(table, Text))
    seen = Text.from_ansi(file.getvalue().rstrip("\n"))
    return [(char, "" if char in " \n" else str(seen.get_style_at_offset(console, at)))
            for at, char in enumerate(seen.plain)]  # fmt: skip


@pytest.mark.parametrize(
    ("answered", "failed", "summary"),
    [
        ((True, True), 0, "no problem found (0 checks passed; details with -v)"),
        ((True, True), 2, "2 problems"),
        ((True, False), 0, "1 host did not answer"),
        ((True, False), 1, "1 problem"),
        ((False, False), 0, "no host answered: gpu01: lost (and 1 other host)"),
        ((False, False), 2, "no host answered: gpu01: lost → look (and 1 other host)"),
    ],
)
def test_the_summary_of_a_check_counts_silent_hosts_as_a_problem(
    capsys: pytest.CaptureFixture[str], answered: tuple[bool, ...], failed: int, summary: str
) -> None:
    lost = RemoteError("gpu01", "lost")
    observations = {
        name: Observation(name, Facts()) if reply else Observation(name, error=lost)
        for name, reply in zip(("gpu01", "gpu02"), answered, strict=True)
    }
    verdicts = tuple(Verdict("tcp", "failed", "gpu01", "lost", remedy="look") for _ in range(failed))
    show_check(Console(), api.CheckReport(observations, verdicts))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == summary
    assert any(answered) == (len(lines) > 1)


def test_a_streamed_text_shows_no_secret_whatever_its_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    text = "first s3cr3t-value, then\ncorrect horse battery is it. \x1b[2Jend"
    for secrets in (["s3cr3t-value"], ["s3cr3t-value", "correct horse battery"]):
        redactor = Redactor(secrets)
        for size in range(1, 12):
            with StreamedText(Console(redactor=redactor)) as streamed:
                for at in range(0, len(text), size):
                    streamed.add(text[at : at + size])
            assert capsys.readouterr().out == Console(redactor=redactor).clean(text) + "\n"


class Counting(Console):
    """A console that counts the characters that it has looked through."""

    looked_through = 0

    def clean(self, text: str) -> str:
        self.looked_through += len(text)
        return super().clean(text)


def test_a_long_streamed_text_is_shown_as_a_whole_one_is_and_not_looked_through_again_and_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [f"word-{number} s3cr3t-value \x1b[1m{number}\n" for number in range(10_000)]
    text, redactor = "".join(words), Redactor(["s3cr3t-value"])
    console = Counting(redactor=redactor)
    with StreamedText(console) as streamed:
        for at in range(0, len(words), 100):
            streamed.add("".join(words[at : at + 100]))
    assert capsys.readouterr().out == Console(redactor=redactor).clean(text) + "\n"
    assert console.looked_through < 30 * len(text)  # from the beginning with each piece: 50


def test_a_check_ends_with_warnings_and_failures_and_shows_the_rest_if_verbose(
    capsys: pytest.CaptureFixture[str],
) -> None:
    verdicts = (
        Verdict("mtu", "failed", "gpu01", "MTU 1400"), Verdict("tcp", "passed", found="1 host"),
        Verdict("clock", "warning", "gpu01", "7 s off"), Verdict("lock", "skipped", found="needs -c"),
    )  # fmt: skip
    report = api.CheckReport({"gpu01": Observation("gpu01", Facts())}, verdicts)
    for verbose, order in ((False, ["7 s off", "MTU 1400"]), (True, ["1 host", "needs -c", "7 s off", "MTU 1400"])):
        show_check(Console(verbose=verbose), report)
        out = capsys.readouterr().out
        assert (
            re.findall("|".join(["1 host$", "needs -c", "7 s off", "MTU 1400"]), out.split("FOUND", 1)[1], re.MULTILINE)
            == order
        )
        assert out.endswith("\n\n1 problem, 1 warning\n")
    well = replace(report, verdicts=verdicts[1:2])
    show_check(Console(), well)
    assert capsys.readouterr().out.endswith("\n\nno problem found (1 check passed; details with -v)\n")
