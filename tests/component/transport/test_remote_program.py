"""Programs as they are sent and heard, with a real Python on the other side."""

from __future__ import annotations

import ast
import io
import itertools
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy import remote
from flagscale_deploy.errors import InterruptedByUser, RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.deployment import ray_temp
from flagscale_deploy.remote.messages.program import HostProgram
from flagscale_deploy.remote.wire import PREFIX
from flagscale_deploy.transport import bundle as bundle_module
from flagscale_deploy.transport.bundle import bare, bundle, closure
from flagscale_deploy.transport.local import LocalConnection
from flagscale_deploy.transport.remote_program import PYTHON_WORDS, Program, call, command
from tests.fakes import Exit, FakeFleet, Output, Stderr, untyped

ROOM = Path(next(iter(remote.__path__)))
MODULES = sorted(
    ".".join(path.relative_to(ROOM).with_suffix("").parts) for path in ROOM.rglob("*.py") if path.stem != "__init__"
)
HERE = Host("here", "localhost", connection="local", python=sys.executable)


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Send a program of the test's own to a real Python on this machine."""
    closure.cache_clear()
    sources: dict[str, str] = {}
    real = bundle_module._source
    monkeypatch.setattr(bundle_module, "_source", lambda module: sources.get(module) or real(module))

    def start(source: str, args: Mapping[str, Any] | None = None, **settings: Any) -> Program[Any, Any]:
        sources["programs.subject"] = (
            "import os, sys, time\nfrom flagscale_deploy.remote.wire import send, input_ended\n" + source
        )
        bundle_module._packed.cache_clear()
        return Program(LocalConnection(HERE), untyped("subject"), args or {}, **{"timeout": 20.0, **settings})

    yield start
    closure.cache_clear()
    bundle_module._packed.cache_clear()
    bundle_module._packed.cache_clear()


@pytest.mark.parametrize("module", MODULES)
def test_a_program_brings_all_it_needs_in_the_order_it_needs_it(module: str) -> None:
    order = closure(module)
    assert order[-1] == module
    assert len(order) == len(set(order))
    for at, entry in enumerate(order):
        for needed in imports(entry):
            assert needed in order[:at], f"{entry} needs {needed}"


def imports(module: str) -> set[str]:
    """Return what a module of remote/ imports from its room, read in another way than the product does."""
    tree = ast.parse((ROOM / f"{module.replace('.', '/')}.py").read_text())
    tree.body = [
        node for node in tree.body if not isinstance(node, ast.If) or ast.unparse(node.test) != "TYPE_CHECKING"
    ]
    named = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    full = {f"{node.module}.{alias.name}" for node in named for alias in node.names}
    below = {
        name.removeprefix("flagscale_deploy.remote.") for name in full if name.startswith("flagscale_deploy.remote.")
    }
    return {name if name in MODULES else name.rpartition(".")[0] for name in below}


@pytest.mark.parametrize("module", ["probe", "stop", "archive"])
def test_a_bundle_compiles_and_its_arguments_are_data(module: str) -> None:
    args = {"hostile": '\'; import os #"""\n\\ \ud800 ü', "none": None, "list": [1, True]}
    length, _, sent = bundle(module, args, 1.5).partition(b"\n")
    program, behind = sent[: int(length)], io.BytesIO(sent[int(length) :])
    compile(program, "bundle", "exec")
    read: dict[str, Any] = {"s": behind}
    exec(program.decode().split("\n")[0], read)
    assert behind.read() == b""
    texts, (name, given, seconds) = zlib.decompress(read["PACKED"]).decode().split("\0"), json.loads(read["TOLD"])
    assert (name, given, seconds) == (module, args, 2)
    assert texts[-2:] == [f"programs.{module}", bare((ROOM / f"programs/{module}.py").read_text())]
    assert "wire" in texts[::2]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_without_its_docstrings_does_the_same_on_the_same_lines(module: str) -> None:
    source = (ROOM / f"{module.replace('.', '/')}.py").read_text()
    (code, lines, texts), (bare_code, bare_lines, bare_texts) = map(parts, (source, bare(source)))
    assert (bare_code, bare_lines) == (code, lines)
    assert any(texts)
    assert not any(bare_texts)


def parts(source: str) -> tuple[str, list[int], list[str]]:
    """Return a module's syntax tree without its docstrings, the lines that its nodes stand in, and the docstrings."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    docstrings = [node.value for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    texts = [str(docstring.value) for docstring in docstrings]
    for docstring in docstrings:
        docstring.value = ""
    return ast.dump(tree), [node.lineno for node in nodes if hasattr(node, "lineno")], texts


def test_every_module_loads_under_a_real_python_without_ours(send: Any) -> None:
    source = "".join(
        f"from flagscale_deploy.remote{package and '.'}{package} import {name} as m{number}\n"
        for number, (package, _, name) in enumerate(module.rpartition(".") for module in MODULES)
    )
    source += "def main(args):\n"
    source += (
        "    send({'loaded': [name for at, name in enumerate(args['names']) if globals()['m%d' % at].__builtins__]})"
    )
    with send(source, {"names": MODULES}) as running:
        (answer,) = running.messages()
    assert answer["loaded"] == MODULES


@pytest.mark.parametrize(("program", "args"), [("ps", {"gpus": False}), ("inspect", {"deployment": "no", "ask": True})])
def test_where_nothing_was_ever_deployed_looking_imports_little(program: str, args: Any, tmp_path: Path) -> None:
    words = [sys.executable, "-X", "importtime", *PYTHON_WORDS]
    sent = bundle(program, {"host": "gpu01", **args}, 30)
    done = subprocess.run(words, input=sent, capture_output=True, env={"HOME": str(tmp_path)}, timeout=60, check=True)
    assert PREFIX.encode() in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "json" in imported
    assert not imported & {"pathlib", "urllib.parse", "shutil", "socket", "subprocess"}


def test_messages_come_as_they_are_said_and_arguments_arrive(send: Any) -> None:
    args = {"text": 'it\'s "$(x)"\n\\ ü \U0001f600', "number": 1.5, "nothing": None}
    with send("def main(args):\n    send({'first': 1})\n    send({'args': args})", args) as running:
        assert list(running.messages()) == [{"first": 1}, {"args": args}]


def test_noise_before_and_between_messages_is_passed_over(send: Any) -> None:
    source = r"""
def main(args):
    sys.stdout.write("Welcome to gpu01!\nno newline before: ")
    send({"a": 1})
    sys.stdout.write("fsd1 not json\n@fsd2 [1]\n@fsd1\n\xff\n")
    sys.stderr.write("locale: Cannot set LC_ALL\n")
    send({"b": 2})
    sys.stdout.write("bye, without a line end")
"""
    with send(source) as running:
        assert list(running.messages()) == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("printed", "noise"),
    [
        (b"", ""),
        (b"Welcome!\nhave a lot of fun\n\n", "Welcome!\nhave a lot of fun"),
        (b"no line end", "no line end"),
        (b"\xff\n", "\ufffd"),
        ("ü".encode() * 5000 + b"\n" + b"more\n" * 500, "ü" * 200),
    ],
)
@pytest.mark.parametrize("size", [3, 1 << 20])
def test_what_is_printed_before_the_first_message_is_kept(printed: bytes, noise: str, size: int) -> None:
    output = printed + PREFIX.encode() + b'{"n": 1}\nlater\n' + PREFIX.encode() + b'{"n": 2}\n'
    cut: list[Output] = [output[at : at + size] for at in range(0, len(output), size)]
    running = FakeFleet(lambda _host, _module, _args: cut)
    with Program(running.connection("gpu01"), untyped("probe"), {}, timeout=5) as program:
        assert program.last() == {"n": 2}
        assert program.noise == noise


def test_a_login_that_is_refused_in_words_is_told_with_them() -> None:
    refused: list[Output] = [b"This account is currently not available.\n", Exit(1)]
    running = FakeFleet(lambda _host, _module, _args: refused)
    with pytest.raises(RemoteError, match="exit status 1: This account is currently not available"):
        call(running.connection("gpu01"), untyped("probe"), {}, timeout=5)


def test_a_program_that_raises_says_what(send: Any) -> None:
    with send("def main(args):\n    send({'a': 1})\n    raise RuntimeError('disk on fire')") as running:
        heard = running.messages()
        assert next(heard) == {"a": 1}
        with pytest.raises(RemoteError) as raised:
            next(heard)
    assert str(raised.value) == "here: subject: RuntimeError: disk on fire"


def test_a_program_that_does_not_even_load_says_why(send: Any) -> None:
    with pytest.raises(RemoteError, match=r"here: subject: .*No module named 'nosuch'"):
        with send("import nosuch\ndef main(args): pass") as running:
            list(running.messages())


def test_a_program_that_ends_with_a_status_is_told_with_its_last_words(send: Any) -> None:
    with pytest.raises(RemoteError, match="here: subject: exit status 7: last words"):
        with send("def main(args):\n    sys.stderr.write('first\\nlast words\\n')\n    sys.exit(7)") as running:
            list(running.messages())


def test_a_program_that_is_killed_is_no_success(send: Any) -> None:
    with pytest.raises(RemoteError, match="exit status"):
        with send("def main(args):\n    send({'a': 1})\n    os.kill(os.getpid(), 9)") as running:
            list(running.messages())


@pytest.mark.parametrize("python", ["/no/such/python", "/etc/hostname"])
def test_a_host_without_python_is_told_with_a_remedy(python: str) -> None:
    with pytest.raises(RemoteError) as raised:
        call(
            LocalConnection(Host("here", "localhost", connection="local", python=python)),
            untyped("probe"),
            {},
            timeout=10,
        )
    assert raised.value.problem.startswith("no usable Python (")
    assert python in raised.value.problem
    assert "ansible_python_interpreter" in raised.value.remedy


def test_a_program_that_says_nothing_is_an_error() -> None:
    running = FakeFleet(lambda _host, _module, _args: [b"Last login: today\n"])
    with pytest.raises(RemoteError, match="gpu01: probe: the host program ended without a reply"):
        call(running.connection("gpu01"), untyped("probe"), {}, timeout=5)


def test_silence_past_the_deadline_is_an_error_and_the_program_is_let_go(send: Any) -> None:
    began = time.monotonic()
    with pytest.raises(RemoteError, match=r"here: no answer within 0\.4 s"):
        with send("def main(args):\n    input_ended(60)", timeout=0.4) as running:
            list(running.messages())
    assert time.monotonic() - began < 30


def test_a_program_that_is_allowed_more_time_has_it(send: Any) -> None:
    source = "def main(args):\n    send({'n': 0})\n    input_ended(5.5)\n    send({'n': 1})"
    with send(source, timeout=5.0, bounded=False) as running:
        heard = []
        for message in running.messages():
            heard.append(message["n"])
            running.allow(60.0)
    assert heard == [0, 1]


def test_a_program_whose_operator_is_gone_notices(send: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    source = """
def main(args):
    send({"started": True})
    while not input_ended(0.05): pass
    open(args["trace"], "w").write("noticed")
"""
    with send(source, {"trace": str(trace)}) as running:
        assert next(running.messages()) == {"started": True}
        assert not trace.exists()
    assert trace.read_text() == "noticed"


def test_an_end_of_input_can_be_told_while_one_listens(send: Any) -> None:
    source = "def main(args):\n    send({'a': 1})\n    while not input_ended(0.05): pass\n    send({'b': 2})"
    with send(source) as running:
        heard = running.messages()
        assert next(heard) == {"a": 1}
        running.end_input()
        assert list(heard) == [{"b": 2}]


def test_it_ends_by_itself_where_nobody_could_end_it(send: Any) -> None:
    """A host that lost its network keeps the program's input open: an alarm on the host itself ends it."""
    with pytest.raises(RemoteError, match="did not end in time"):
        with send(
            "def main(args):\n    import signal; signal.setitimer(signal.ITIMER_REAL, 0.2); time.sleep(30)"
        ) as running:
            list(running.messages())


def test_cancelling_ends_a_wait(send: Any) -> None:
    cancelled = threading.Event()
    with send("def main(args):\n    send({'a': 1})\n    input_ended(60)", cancelled=cancelled) as running:
        heard = running.messages()
        assert next(heard) == {"a": 1}
        cancelled.set()
        with pytest.raises(InterruptedByUser):
            next(heard)


def test_nothing_is_started_for_an_operator_who_has_gone(tmp_path: Path) -> None:
    """His lock has gone with him: a `stop` may have been there before the launcher came to start it."""
    args = {
        "deployment": "qwen", "host": "gpu01", "run_id": "r1", "record": {}, "script": "s.sh", "role": "engine",
        "detached": True, "timeout": 5, "session": "00000000",
        "files": {"scripts/s.sh": [f"touch {tmp_path}/started\n", "700"]},
    }  # fmt: skip
    sent = bundle("launch", args)
    here = subprocess.Popen([sys.executable, *PYTHON_WORDS], stdin=subprocess.PIPE, env={"HOME": str(tmp_path)})
    here.communicate(sent, timeout=20)  # and the input ends
    state = tmp_path / ".flagscale-deploy/qwen/gpu01"
    assert json.loads((state / "record.json").read_text())["processes"] == []
    assert not (tmp_path / "started").exists()
    shutil.rmtree(f"/tmp/fsd-{os.getuid()}-00000000")


def test_of_earlier_runs_the_last_ones_temporary_directory_is_kept(tmp_path: Path) -> None:
    """The others would fill the disk of a host where a deployment is stopped and run again every night."""
    before, last, other = (f"/tmp/fsd-{os.getuid()}-0000000{at}" for at in range(1, 4))
    for path, deployment in ((before, "qwen"), (last, "qwen"), (other, "other")):
        Path(path).mkdir()
        (Path(path) / ray_temp.CLAIM).write_text(json.dumps({"deployment": deployment, "host": "gpu01"}))
    state = tmp_path / ".flagscale-deploy/qwen/gpu01"
    state.mkdir(parents=True)
    (state / "record.json").write_text(json.dumps({"run_id": "r1", "ray_temp_dir": last, "stopped_at": 1.0}))
    args = {
        "deployment": "qwen", "host": "gpu01", "run_id": "r2", "record": {"gpus": [], "ports": {}}, "exclusive": [],
    }  # fmt: skip
    try:
        command = [sys.executable, *PYTHON_WORDS]
        home, pipe, nowhere = {"HOME": str(tmp_path)}, subprocess.PIPE, subprocess.DEVNULL
        with subprocess.Popen(command, env=home, stdin=pipe, stdout=nowhere) as program:
            assert program.stdin is not None
            program.stdin.write(bundle("reserve", args))
            program.stdin.flush()
            assert program.wait(60) == 0  # nothing is taken for an operator who has gone
        assert [Path(path).exists() for path in (before, last, other)] == [False, True, True]
    finally:
        for path in (before, last, other):
            shutil.rmtree(path, ignore_errors=True)


def test_raw_bytes_follow_a_message_and_messages_follow_them(send: Any) -> None:
    source = "def main(args):\n    send({'raw': True})\n    sys.stdout.buffer.write(bytes(range(256)) * 2000)\n"
    source += "    send({'then': 1})"
    with send(source) as running:
        assert next(running.messages()) == {"raw": True}
        assert b"".join(running.take(256 * 2000)) == bytes(range(256)) * 2000
        assert list(running.messages()) == [{"then": 1}]


def test_raw_bytes_of_a_program_that_fails_are_no_success() -> None:
    running = FakeFleet(lambda _host, _module, _args: [{"raw": True}, b"half", Stderr(b"disk gone\n"), Exit(1)])
    with Program(running.connection("gpu01"), untyped("archive"), {}, timeout=5) as program:
        next(program.messages())
        with pytest.raises(RemoteError, match="gpu01: archive: exit status 1: disk gone"):
            list(program.take(5))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_however_the_network_cuts_it(size: int) -> None:
    output = b"noise\n" + b"".join(PREFIX.encode() + json.dumps({"n": n, "t": "ü"}).encode() + b"\n" for n in range(5))
    cut: list[Output] = [output[at : at + size] for at in range(0, len(output), size)]
    running = FakeFleet(lambda _host, _module, _args: cut)
    with Program(running.connection("gpu01"), untyped("probe"), {}, timeout=5) as program:
        assert [message["n"] for message in program.messages()] == [0, 1, 2, 3, 4]


def test_a_line_without_end_is_refused() -> None:
    def endless(_host: Host, _module: str, _args: object) -> Iterator[Output]:
        while True:
            yield b"x" * (1 << 16)

    running = FakeFleet(endless)
    with pytest.raises(RemoteError, match="a line of more than 1024 KiB"):
        call(running.connection("gpu01"), untyped("probe"), {}, timeout=10)


@pytest.mark.parametrize("source", [Stderr, bytes])
def test_endless_noise_is_not_listened_to_and_takes_no_memory(source: type[bytes]) -> None:
    def noisy(_host: Host, _module: str, _args: object) -> Iterator[Output]:
        while True:
            yield source(b"noise " * 10_000 + b"\n")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RemoteError, match=r"sent more than 8\d\d\d KiB"):
        call(FakeFleet(noisy).connection("gpu01"), untyped("probe"), {}, timeout=60)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


def test_a_reply_that_is_nested_without_end_is_refused() -> None:
    nested = PREFIX.encode() + b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n"
    running = FakeFleet(lambda _host, _module, _args: [{"a": 1}, nested])
    with pytest.raises(RemoteError, match="gpu01: probe: malformed reply from the host program"):
        call(running.connection("gpu01"), untyped("probe"), {}, timeout=5)


def talking(_host: Host, _module: str, _args: object) -> Iterator[Output]:
    for at in itertools.count():
        yield {f"k{at}": "x" * 1000}


def test_endless_messages_are_not_listened_to() -> None:
    with pytest.raises(RemoteError, match=r"gpu01: probe: sent more than 1\d\d\d messages"):
        call(FakeFleet(talking).connection("gpu01"), untyped("probe"), {}, timeout=60)


def test_endless_messages_of_a_program_that_is_there_for_them_end_with_the_deadline() -> None:
    reader = HostProgram[Any, Any, Any]("archive", bytes_per_second=None)
    with pytest.raises(RemoteError, match=r"not ended within 0\.5 s"):
        call(FakeFleet(talking).connection("gpu01"), reader, {}, timeout=0.5)


def test_text_that_is_no_unicode_can_be_printed_and_written(send: Any) -> None:
    """File names and command lines of a host may hold any bytes; Python shows those as lone surrogates."""
    source = r"""
def main(args):
    send({"name": os.fsdecode(b"a\xff\xfeb"), "deep": [{"\udc80": "\ud83d\ude00"}], "fine": "\U0001f600"})
"""
    with send(source) as running:
        (answer,) = running.messages()
    json.dumps(answer, ensure_ascii=False).encode()
    assert answer["name"] == "a??b"
    assert answer["fine"] == "\U0001f600"


@pytest.mark.parametrize("container", [None, "it's a box"])
def test_the_command_is_one_shell_line(container: str | None) -> None:
    host = Host("h", "h", python="/opt/my python/bin/python3", container=container)
    words = shlex.split(command(LocalConnection(host)))
    assert words[-4:] == ["/opt/my python/bin/python3", *PYTHON_WORDS]
    assert words[:-4] == (["docker", "exec", "-i", "it's a box"] if container else [])


def test_of_many_threads_one_puts_a_library_together(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle_module._packed.cache_clear()
    read: list[str] = []
    real = bundle_module._source

    def count(module: str) -> str:
        read.append(module)
        return real(module)

    monkeypatch.setattr(bundle_module, "_source", count)
    together = threading.Barrier(8)

    def put_together() -> None:
        together.wait()
        bundle("chat", {})

    at_work = [threading.Thread(target=put_together) for _ in range(8)]
    for worker in at_work:
        worker.start()
    for worker in at_work:
        worker.join()
    assert read.count("programs.chat") <= 2  # its imports, its text
