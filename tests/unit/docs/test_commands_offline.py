"""Commands of the pages that contact no host, as they show them; and that none of their commands is run nowhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from flagscale_deploy import serve
from flagscale_deploy.cli.project_file import NAME as PROJECT_FILE
from flagscale_deploy.cli.project_file import read_project_file
from flagscale_deploy.config.load import load_spec
from flagscale_deploy.inventory.load import load_inventory
from tests.docs.pages import (
    REPOSITORY,
    Block,
    Command,
    code,
    console_blocks,
    files,
    host_commands,
    kinds_of_blocks,
    python_blocks,
    tables,
)
from tests.docs.workplace import Workplace


@pytest.mark.parametrize("block", console_blocks("offline"), ids=str)
def test_a_command_prints_what_the_page_shows(block: Block, tmp_path: Path) -> None:
    work = Workplace(tmp_path)
    for command in block.commands:
        printed = work.type(command.line)
        assert command.prints(printed), f"$ {command.line}\n{printed}\n{command.page} shows\n{command.output}"


def test_every_make_target_of_the_pages_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    lines = [command.line for block in console_blocks("make") for command in block.commands]
    assert {line.removeprefix("make ") for line in lines} <= targets
    (of_readme,) = console_blocks("make", page="README.md")
    assert [command.line for command in of_readme.commands] == ["make demo", "make test"]
    assert set(lines) == {"make demo", "make test"}, "CI runs these"


def test_nothing_to_type_stands_where_no_test_looks_for_it() -> None:
    kinds = [kind for _, kind in kinds_of_blocks()]
    assert set(kinds) == {"console", "yaml", "text", "python"}
    texts = [page for page, kind in kinds_of_blocks() if kind == "text"]
    assert texts == ["docs/internals/architecture.md"], "only the drawing is neither to be typed nor a file"
    assert [len(console_blocks(place)) > 0 for place in ("make", "install", "hosts", "offline")] == [True] * 4


def test_what_the_readme_shows_of_day_2_is_run_with_hosts() -> None:
    (rows,) = tables("to", "README.md")
    lines = [text for row in rows for text in code(row[1]) if text.startswith("flagscale-deploy ")]
    assert len(lines) > 4
    assert set(lines) <= set(host_commands())


@pytest.mark.parametrize(("name", "text"), files().items(), ids=files().keys())
def test_a_file_that_a_page_shows_can_be_loaded(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Workplace(tmp_path)
    work.write({"conf/serve/qwen2.5-7b.yaml": (REPOSITORY / "examples/hydra/conf/serve/qwen2.5-7b.yaml").read_text()})
    if name.endswith(PROJECT_FILE):
        monkeypatch.chdir((tmp_path / name).parent)
        assert read_project_file().values
    elif re.search(r"^(hosts|all):", text, re.MULTILINE):
        assert load_inventory(tmp_path / name).hosts
    else:
        spec = load_spec(tmp_path / name)
        assert spec.models or spec.runs_program


def test_a_program_that_a_page_shows_uses_what_there_is() -> None:
    (program,) = python_blocks()
    used = {
        node.attr
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "serve"
    }
    assert {"remote", "init", "run"} <= used <= set(dir(serve))


@pytest.mark.parametrize(
    ("shown", "printed", "fits"),
    [
        ("a …\n", "a b c\n", True),
        ("a …\n", "a b\nc\n", False),
        ("a\n…\nz\n", "a\nb\nc\nz\n", True),
        ("…\n", "", True),
        ("H    S\n", "H  S   \n", True),
        ("    x\n", "x\n", False),
        ("a\n", "a\nb\n", False),
    ],
)
def test_dots_stand_for_text_in_a_line_or_for_lines(shown: str, printed: str, fits: bool) -> None:
    assert Command("", shown).prints(printed) is fits
