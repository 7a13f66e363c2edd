"""Command lines read by a parser that is laid out as vLLM's, by the Python that runs `vllm`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.deploy.engine_arguments import _program
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.engine.vllm_parser import behind
from flagscale_deploy.remote.messages.check import PARSE_FLAGS, ParseFlagsArguments, ParseFlagsReply
from flagscale_deploy.remote.messages.probe import PROBE, ProbeArguments
from flagscale_deploy.remote.programs.parse_flags import read
from flagscale_deploy.remote.system import subprocesses
from flagscale_deploy.transport.local import LocalConnection
from flagscale_deploy.transport.remote_program import call

STAND_IN = Path(__file__).parents[3] / "lab/product/vllm_package"
HERE = Host("here", "localhost", connection="local", python=sys.executable)

NEWER = """
class Serve:
    name = "serve"

    def subparser_init(self, places):
        from vllm.entrypoints.openai.cli_args import make_arg_parser

        serve = places.add_parser("serve", usage="vllm serve [model_tag] [options]")
        serve.add_argument("model_tag", nargs="?")
        return make_arg_parser(serve)

    def validate(self, args):
        if args.headless == []:
            raise ValueError("no head")

def cmd_init():
    return [Serve()]
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Provide a directory for PYTHONPATH with a package `vllm` in the layout of 0.6."""
    return shutil.copytree(STAND_IN, tmp_path / "lib/vllm")


@pytest.fixture
def newer(package: Path) -> Path:
    """Provide the layout since 0.7, with a module for the parser's class as since 0.12."""
    (package / "entrypoints/cli").mkdir()
    (package / "entrypoints/cli/__init__.py").touch()
    (package / "entrypoints/cli/serve.py").write_text(NEWER)
    (package / "utils").mkdir()
    (package / "utils/__init__.py").touch()
    (package / "utils.py").rename(package / "utils/argparse_utils.py")
    return package


def ask(package: Path, *lines: list[str], seconds: float = 20, **settings: Any) -> ParseFlagsReply:
    env: dict[str, str] = {"PYTHONPATH": str(package.parent), **settings.pop("env", {})}
    venv, before_start = settings.get("venv"), settings.get("before_start")
    args: ParseFlagsArguments = {
        "venv": venv, "before_start": before_start, "env": env, "program": _program(), "lines": lines,
        "seconds": seconds, "exports": settings.get("exports", ""),
    }  # fmt: skip
    return call(LocalConnection(HERE), PARSE_FLAGS, args, timeout=60)


GOOD = ["serve", "/models/it's", "--tensor_parallel_size=2", "--max-model-len=8k", "--hf-overrides.a.b=1"]


@pytest.mark.parametrize("layout", ["package", "newer"])
def test_what_the_parser_says_of_each_line(layout: str, request: pytest.FixtureRequest) -> None:
    parsed = ask(
        request.getfixturevalue(layout),
        GOOD,
        ["serve", "m", "--tensor-paralel-size=2", "--no-such.key=1", "--enforce-eager"],
        ["serve", "m", "--max-model-len=abc"],
        ["serve", "m", "stray"],
        ["serve", "m", "--help"],
    )
    assert [(answer["error"], answer["unknown"]) for answer in parsed["parsed"]] == [
        ("", []),
        ("", ["tensor-paralel-size", "no-such"]),
        ("argument --max-model-len: invalid length value: 'abc'", []),
        ("unrecognized arguments: stray", []),
        ("it ends with 0", []),
    ]
    assert {"tensor-parallel-size", "max-model-len", "served-model-name"} <= set(parsed["known"])


def test_variables_made_of_those_of_the_host_are_there_before_vllm_is_imported(package: Path) -> None:
    env = {"PYTHONPATH": "/elsewhere", "PLACE": str(package.parent)}
    assert "broken" in ask(package, GOOD, env=env)
    assert ask(package, GOOD, env=env, exports='export PYTHONPATH=/none:"${PLACE-}"\n')["parsed"][0]["error"] == ""


def test_what_serve_checks_itself_is_checked_in_both_layouts(package: Path, newer: Path) -> None:
    assert ask(newer, ["serve", "m", "--headless"])["parsed"][0]["error"] == "no head"
    shutil.rmtree(package / "entrypoints/cli")
    error_text = ask(package, ["serve", "m", "--enable-auto-tool-choice"])["parsed"][0]["error"]
    assert error_text == "Error: --enable-auto-tool-choice requires --tool-call-parser"


def test_what_is_printed_meanwhile_is_passed_over_and_the_network_is_off(package: Path) -> None:
    (package / "__init__.py").write_text(
        "import os; print('INFO welcome'); os.system('echo from a child')\nassert os.environ['HF_HUB_OFFLINE'] == '1'\n"
    )
    assert ask(package, GOOD, before_start="echo '@parsed nonsense'")["parsed"] == [{"error": "", "unknown": []}]


@pytest.mark.parametrize("env", [{}, {"PYTHONPATH": ":"}, {"PYTHONPATH": "."}], ids=["", "empty entry", "dot"])
def test_nothing_is_imported_from_where_the_operator_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str]
) -> None:
    """On `connection: local` that may be /tmp: modules of any name may lie there, made by other users."""
    planted, home, seen = tmp_path / "planted", tmp_path / "home", tmp_path / "seen"
    for folder in (planted, home):
        folder.mkdir()
    for name in (*sys.stdlib_module_names, "vllm", "ray", "torch", "sitecustomize", "usercustomize"):
        (planted / f"{name}.py").write_text(f"open({str(seen)!r}, 'a').write({name!r})")
    monkeypatch.chdir(planted)
    monkeypatch.setenv("HOME", str(home))
    assert ask(tmp_path / "lib/vllm", GOOD, env=env)["broken"] == "ModuleNotFoundError: No module named 'vllm'"
    look: ProbeArguments = {
        "host": "here", "venv": None, "before_start": "true", "env": env, "exports": "", "models": [], "tls_files": [],
    }  # fmt: skip
    probed = call(LocalConnection(HERE), PROBE, look, timeout=60)
    assert probed["environment_error"] is None
    assert not seen.exists(), seen.read_text()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import nosuch", "ModuleNotFoundError: No module named 'nosuch'"),
        ("raise RuntimeError('first\\nlast')", "RuntimeError: first\nlast"),
        ("import sys; sys.exit('no AVX2')", "SystemExit: no AVX2"),
        ("import os; os.kill(os.getpid(), 4)", "vLLM's parser ended with SIGILL"),
        ("import os; os.write(2, b'x\\nlast words\\n'); os._exit(3)",
         "vLLM's parser ended with exit status 3: last words"),
        ("import time; time.sleep(60)", "vLLM's parser did not answer within 1 s"),
    ],
)  # fmt: skip
def test_a_vllm_that_cannot_be_asked_says_why(package: Path, source: str, why: str) -> None:
    (package / "__init__.py").write_text(source)
    assert ask(package, GOOD, seconds=1 if "sleep" in source else 20) == {"broken": why}


def test_a_dependency_that_is_missing_is_not_taken_for_an_older_layout(newer: Path) -> None:
    (newer / "entrypoints/cli/serve.py").write_text("import uvloop_of_mars")
    assert ask(newer, GOOD) == {"broken": "ModuleNotFoundError: No module named 'uvloop_of_mars'"}


def test_no_vllm_at_all(tmp_path: Path) -> None:
    assert ask(tmp_path / "lib/vllm", GOOD)["broken"] == "ModuleNotFoundError: No module named 'vllm'"


def test_it_is_the_python_of_the_command_that_is_asked(package: Path, tmp_path: Path) -> None:
    """`vllm` in a place on PATH whose python3 is another: conda's, say, with `pip install --user`."""
    other = tmp_path / "other/python3"
    other.parent.mkdir()
    other.write_text(f'#!/bin/sh\nexport PYTHONPATH={package.parent}\nexec {sys.executable} "$@"\n')
    script = tmp_path / "bin/vllm"
    script.parent.mkdir()
    script.write_text(f"#!{other}\n")
    for changed_file in (other, script):
        changed_file.chmod(0o755)
    parsed = ask(tmp_path / "nothing/vllm", GOOD, before_start=f"PATH={script.parent}:$PATH")
    assert parsed.get("parsed") == [{"error": "", "unknown": []}], parsed


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("#!/opt/venv/bin/python3.11\n", "/opt/venv/bin/python3.11"),
        ("#! /opt/venv/bin/python -I\n", "/opt/venv/bin/python"),
        ("#!/bin/sh\n'''exec' \"/a place/bin/python3\" \"$0\" \"$@\"\n' '''\n", "/a place/bin/python3"),
        ("#!/bin/sh\n'''exec' /long/bin/python \"$0\" \"$@\"\n' '''\n", "/long/bin/python"),
        ("#!/usr/bin/env python3\n", shutil.which("python3")),
        ("#!/usr/bin/env -S python3 -u\n", shutil.which("python3")),
        ("#!/usr/bin/env bash\n", None),
        ("#!/bin/bash\nexec docker run vllm\n", None),
        ("#!\n", None),
        ("", None),
        ("\x7fELF\x02\x01", None),
    ],
)
def test_the_python_behind_a_command(tmp_path: Path, text: str, python: str | None) -> None:
    command = tmp_path / "vllm"
    command.write_text(text)
    assert behind(str(command)) == python


def test_there_may_be_no_command() -> None:
    assert behind(None) is None


def test_an_answer_is_the_last_one_and_needs_a_good_end() -> None:
    text = '@parsed {"known": []}\n@parsed {"known": ["a"]}\n'
    assert read(subprocesses.Ended(0, text, ""), 60) == {"known": ["a"]}
    assert read(subprocesses.Ended(1, text, "a\nb\n"), 60) == {"broken": "vLLM's parser ended with exit status 1: b"}
    assert "exit status 0" in read(subprocesses.Ended(0, "", ""), 60)["broken"]
