"""Rows of the table are written cell by cell, and stay in order."""

from __future__ import annotations

from pathlib import Path

from tests.versions import __main__, table


def rows(path: Path) -> list[list[str]]:
    return [table._cells(line) for line in path.read_text().splitlines() if line.startswith("| 0.")]


def test_cells_are_put_into_the_row_of_their_release_newest_first(tmp_path: Path) -> None:
    path = tmp_path / "versions.md"
    path.write_text(f"# A page\n\n{table.FIRST}\n\n| vLLM | Ray | mp |\n|---|---|---|\n\n{table.LAST}\n\nThe end.\n")
    table.write(path, "0.9.2", {"mp": "needs 0.11.1"})
    table.write(path, "0.20.2", {"mp": "no: a | b", "Ray": "2.60.0"})
    table.write(path, "0.9.2", {"Ray": "2.59.0"})
    table.write(path, "0.20.2", {"Ray": "2.60.0"})
    assert rows(path) == [["0.20.2", "2.60.0", "no: a \\| b"], ["0.9.2", "2.59.0", "needs 0.11.1"]]
    assert path.read_text().startswith(f"# A page\n\n{table.FIRST}\n\n| vLLM | Ray | mp |\n")
    assert path.read_text().endswith(f"\n\n{table.LAST}\n\nThe end.\n")


def test_the_page_has_a_column_for_each_way() -> None:
    (header,) = [line for line in table.PAGE.read_text().splitlines() if line.startswith("| vLLM |")]
    assert {way.column for way in __main__.WAYS.values()} <= set(table._cells(header))
