"""The README's picture is what the demo's `run` printed, which is what the quickstart shows."""

from __future__ import annotations

import html
import re
from xml.etree import ElementTree

from tests.demo.picture import COMMAND, WIDTH, picture
from tests.docs.pages import PAGES, REPOSITORY, Command, console_blocks


def lines(svg: str) -> list[str]:
    """Return the lines of a terminal picture: the texts of one height are one line."""
    rows: dict[float, str] = {}
    for text in ElementTree.fromstring(svg).findall(".//{*}text"):
        if "clip-path" in text.attrib and "line" in text.attrib["clip-path"]:
            rows.setdefault(float(text.attrib["y"]), "")
            rows[float(text.attrib["y"])] += text.text or ""
    return [html.unescape(row).replace("\xa0", " ").rstrip() for row in rows.values()]


def test_the_picture_shows_what_was_printed() -> None:
    printed = "vllm_model/0 is ready\n\n" + "x" * (WIDTH + 3) + "\n"
    assert [line for line in lines(picture(printed)) if line] == [
        f"$ {COMMAND}",
        "vllm_model/0 is ready",
        "x" * WIDTH,
        "xxx",
    ]


def test_the_committed_picture_is_of_a_run_as_the_quickstart_shows_it() -> None:
    shown = lines((REPOSITORY / "docs/run.svg").read_text(encoding="utf-8"))
    assert shown[0] == f"$ {COMMAND}"
    (run,) = (
        command
        for block in console_blocks("hosts", page="docs/quickstart.md")
        for command in block.commands
        if command.line == COMMAND
    )
    first, times = run.output.splitlines()[:2]
    assert Command("", f"{first}\n{times}\n").prints("\n".join(shown[1:3]) + "\n")
    assert any(re.match(r"endpoint http://[\d.]+:4567/v1$", line) for line in shown)
    assert "docs/run.svg" in PAGES["README.md"]
