"""A canary secret is looked for in all that is printed, written or shown, in runs that go well and that don't."""

from __future__ import annotations

import base64
import re
import shlex
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.lab import Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator

Write = Callable[..., Serve]
TOKEN, KEY = "hf_canary/1 $'\"x", "sk-canary+two=="


def forms(secret: str) -> list[str]:
    """How it may show itself: plain, quoted, URL-encoded, in base64 alone and behind a name."""
    shown = [secret, shlex.quote(secret), quote(secret), quote(secret, safe="")]
    for before in ("", "u", "us"):
        text = base64.b64encode((before + secret).encode()).decode().rstrip("=")
        shown.append(text[{0: 0, 1: 2, 2: 3}[len(before)] : -2])
    return shown


FORMS = [form for secret in (TOKEN, KEY) for form in forms(secret)]
SEEN = re.compile("|".join(map(re.escape, FORMS)).encode())


class Everywhere:
    """All that was printed, and all command lines and environments of the machine while the block ran."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.lines: set[bytes] = set()
        self.foreign: set[bytes] = set()

    def look(self) -> None:
        for path in Path("/proc").glob("[0-9]*"):
            try:
                line = (path / "cmdline").read_bytes()
                environ = (path / "environ").read_bytes()
            except OSError:
                continue
            if SEEN.search(line.replace(b"\0", b" ")) or SEEN.search(line):
                self.lines.add(line)
            if SEEN.search(environ) and b"FLAGSCALE_DEPLOY_RUN=" not in environ:
                self.foreign.add(line)


@contextmanager
def watched() -> Iterator[Everywhere]:
    seen, ended = Everywhere(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            seen.look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()
    shown = [message for message in seen.said if SEEN.search(message.encode())]
    assert shown == []
    assert seen.lines == set(), "in a list of processes"
    assert seen.foreign == set(), "in the environment of a process that is not the deployment's"


def holding(*places: Path) -> set[Path]:
    """Files below these places that show a canary in any form."""
    files = (path for place in places for path in place.rglob("*") if path.is_file() and not path.is_symlink())
    return {path for path in files if SEEN.search(path.read_bytes())}


def on_hosts(lab: Lab) -> set[Path]:
    """Files of the hosts that show one, but those of the stand-in, which writes down what it was given."""
    places = [host.directory / name for host in lab.hosts for name in ("home", "tmp", "shm", "var")]
    return {path for path in holding(*places) if "vllm-stand-in" not in path.parts}


def of_operator(operator: Operator, served: Serve) -> set[Path]:
    """Files of the operator's that show one, but what he wrote himself, and logs as programs wrote them."""
    files = holding(operator.directory)
    return {path for path in files if path != served.config and "logs" not in path.parts}


@pytest.fixture
def leaky(serve: Write) -> Callable[..., Serve]:
    """Write configurations with secrets."""

    def write(stand_in: str = "") -> Serve:
        return serve(stand_in=stand_in, envs={"HF_TOKEN": TOKEN}, flags={"api-key": KEY})

    return write


def test_a_run_that_goes_well_shows_no_secret_and_leaves_none(
    lab: Lab, operator: Operator, leaky: Callable[..., Serve]
) -> None:
    served = leaky()
    operator.umask = 0
    for host in lab.hosts:
        host.run("echo 'umask 000' >> ~/.bashrc")
    with watched() as seen:
        for words in (
            ("plan", "-c", served.config, "--json"),
            ("plan", "-c", served.config, "--scripts", "-o", "scripts"),
            ("check", "-c", served.config, "--json"),
            ("run", "-c", served.config, "-v"),
            ("run", "-c", served.config, "--json"),
            ("status", "-c", served.config, "--json"),
            ("status", "--name", served.name),
            ("logs", "-c", served.config),
            ("call", "hello", "--name", served.name),
            ("history", "1", "--name", served.name),
            ("history", "1", "--name", served.name, "--json"),
        ):
            seen.said.append(operator(words[0], *words[1:]).said)
        assert "HF_TOKEN: ${oc.env:HF_TOKEN}" in seen.said[-2], "the configuration, which hosts keep in runs/"
        secrets = {path for path in on_hosts(lab) if path.parent.name == "secrets"}
        assert secrets
        assert on_hosts(lab) == secrets
        assert_private(operator, lab, served)
        seen.said.append(operator("stop", "-c", served.config, "--json").said)
    assert on_hosts(lab) == set()
    assert of_operator(operator, served) == set()
    operator("cleanup", "--name", served.name)
    for host in lab.hosts:
        host.run("rm ~/.bashrc")


def assert_private(operator: Operator, lab: Lab, served: Serve) -> None:
    """With a umask of 000 on both sides nothing that we wrote can be read by anybody else."""
    state = [host.directory / "home/.flagscale-deploy" for host in lab.hosts]
    temporary = [path for host in lab.hosts for path in (host.directory / "tmp").glob("fsd-*")]
    runs, scripts = operator.directory / "outputs", operator.directory / "scripts"
    ours = [path for root in (*state, runs, scripts) if root.exists() for path in (root, *root.rglob("*"))]
    assert len(ours) > 20
    assert {
        str(path): oct(mode) for path in ours + temporary if (mode := stat.S_IMODE(path.lstat().st_mode)) & 0o077
    } == {}
    assert {stat.S_IMODE(path.stat().st_mode) for path in runs.rglob("*.json*")} == {0o600}
    assert stat.S_IMODE(operator.run_folder().stat().st_mode) == 0o700
    assert served.name


def test_a_run_whose_engine_prints_all_it_knows_shows_no_secret(
    lab: Lab, operator: Operator, leaky: Callable[..., Serve]
) -> None:
    served = leaky("leaks")
    with watched() as seen:
        ended = operator("run", "-c", served.config, "--json", "-v", exits=5)
        seen.said.append(ended.said)
        assert "401 Client Error: [REDACTED]" in ended.said
        words = ("--junit", "smoke.xml", "--artifacts", "artifacts", "--prompt", "hello")
        seen.said.append(operator("smoke", "-c", served.config, "-v", *words, exits=5).said)
        seen.said.append(operator("logs", "-c", served.config, exits=None).said)
        seen.said.append(operator("logs", "-c", served.config, "--diagnose", exits=None).said)
    assert of_operator(operator, served) == set()
    assert "[REDACTED]" in (operator.directory / "smoke.xml").read_text()
    left = on_hosts(lab)
    assert {path.parent.name for path in left} <= {"logs"}, "beside what the program itself wrote"
    operator("cleanup", "--name", served.name)
    assert on_hosts(lab) == set()


def test_a_script_that_fails_and_files_that_are_wrong_show_no_secret(
    lab: Lab, operator: Operator, leaky: Callable[..., Serve], tmp_path: Path
) -> None:
    served = leaky()
    good = served.config.read_text()
    served.config.write_text(
        good.replace("experiment:\n", 'experiment:\n  cmds: {before_start: "echo $HF_TOKEN $VLLM_API_KEY; false"}\n')
    )
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "vllm_serve.sh.j2").write_text("{{ instance.nothing[env.HF_TOKEN] }}")
    with watched() as seen:
        seen.said.append(operator("run", "-c", served.config, "--skip-check", "environment", exits=None).said)
        seen.said.append(operator("check", "-c", served.config, exits=None).said)
        served.config.write_text(good)
        seen.said.append(operator("plan", "-c", served.config, "--templates", templates, exits=2).said)
        for wrong in (
            good.replace("api-key: ", "api-key: [1, ").replace(KEY + "\n", KEY + "]\n"),
            good.replace("api-key:", "api-key: {a: 1}\n    timeout:"),
            good.replace("model_args:", "model_arg:"),
        ):
            served.config.write_text(wrong)
            seen.said.append(operator("plan", "-c", served.config, "--offline", "-v", exits=None).said)
        served.config.write_text(good)
    assert of_operator(operator, served) == set()
    operator("cleanup", "--name", served.name)
    assert on_hosts(lab) == set()
