"""Secrets reach the engine and nobody else."""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator
from tests.lab.product.stand_in import given

Write = Callable[..., Serve]
TOKEN, KEY, TAKEN = "hf_canary-one$'\"", "sk-canary two", "canary3_from_the_environment"
CANARIES = [canary.encode() for canary in (TOKEN, KEY, TAKEN)]


@contextmanager
def watched_command_lines() -> Iterator[set[bytes]]:
    """Command lines of all processes of the machine, hosts' included, that showed a canary while the block ran."""
    seen: set[bytes] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except OSError:
                    continue
                if b"canary" in line:
                    seen.add(line)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def holding_canaries(*places: Path) -> list[Path]:
    """Files below these places in which a secret stands, as it is or beside others."""
    files = [path for place in places for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if b"canary" in path.read_bytes()]


def test_secrets_are_in_the_engines_environment_and_in_two_files_only(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served = serve(
        envs={"HF_TOKEN": TOKEN},
        flags={"api-key": KEY},
        deploy={"ray": "off", "secrets": ["MY_CREDENTIAL"], "timeouts": {"stop": 1}},
    )
    operator.env["MY_CREDENTIAL"] = TAKEN
    host = lab.hosts[0]
    with watched_command_lines() as shown:
        plan = operator("plan", "-c", served.config, "--json").said
        ran = operator("run", "-c", served.config, "-v").said
        called = operator("call", "hello", "--name", served.name)
        status = operator("status", "--name", served.name, "--json").said
        logs = operator("logs", "--name", served.name).said
    assert called.out == "you said: hello\n"
    environ = given(host, served.port)["environ"]
    assert [environ[name] for name in ("HF_TOKEN", "VLLM_API_KEY", "MY_CREDENTIAL")] == [TOKEN, KEY, TAKEN]
    assert '-H "Authorization: Bearer $VLLM_API_KEY"' in ran
    assert shown == set()
    assert not [text for text in (plan, ran, called.said, status, logs) if "canary" in text]

    assert holding_canaries(operator.directory / "outputs") == []
    secrets = host.directory / f"home/.flagscale-deploy/{served.name}/node1/secrets"
    assert holding_canaries(host.directory / "home", host.directory / "tmp") == [secrets / "env"]
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in secrets.iterdir()} == {0o600}
    assert stat.S_IMODE(operator.run_folder().stat().st_mode) == 0o700

    operator("stop", "--name", served.name)
    assert holding_canaries(host.directory / "home", host.directory / "tmp") == []


def test_a_secret_that_an_engine_prints_is_hidden_in_what_we_say_and_write(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served = serve(
        stand_in="dies", envs={"HF_TOKEN": TOKEN, "STAND_IN_ERROR": f"OSError: 401 Client Error for token {TOKEN}"}
    )
    ended = operator("run", "-c", served.config, "--json", exits=5)
    assert "401 Client Error for token [REDACTED]" in ended.err
    assert "canary" not in ended.said
    folder = operator.run_folder()
    ours = [folder / name for name in ("events.jsonl", "report.json")]
    assert not [path for path in ours if b"canary" in path.read_bytes()]
    assert "[REDACTED]" in (folder / "report.json").read_text()


def test_who_has_no_key_gets_no_answer(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve(flags={"api-key": KEY})
    operator("run", "-c", served.config)
    secrets = lab.hosts[0].directory / f"home/.flagscale-deploy/{served.name}/node1/secrets/env"
    assert operator("bench", "--name", served.name, "--force", "--json").json["points"][0]["completed"] == 100
    secrets.write_text("VLLM_API_KEY=another\n")
    unmeasured = operator("bench", "--name", served.name, "--force", exits=1)
    assert re.search(r"it is \w+|HTTP Error 401", unmeasured.err)
    refused = operator("call", "hello", "--name", served.name, exits=1)
    assert "node1: model0/0: HTTP 401" in refused.err
    operator("stop", "--name", served.name)
