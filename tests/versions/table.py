"""The table of docs/versions.md: a row for each release of vLLM, a column for each way to serve."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "versions.md"
FIRST, LAST = "<!-- rows -->", "<!-- end of rows -->"


def write(path: Path, version: str, cells: dict[str, str]) -> None:
    """Put cells, by their columns, into the row of a release; other cells stay. Rows are sorted, the newest first."""
    before, rest = path.read_text().split(FIRST)
    inner, after = rest.split(LAST)
    header, rule, *lines = [line for line in inner.splitlines() if line.startswith("|")]
    columns = _cells(header)
    rows = {_cells(line)[0]: dict(zip(columns, _cells(line), strict=True)) for line in lines}
    escaped = {column: text.replace("|", "\\|") for column, text in cells.items()}
    rows[version] = dict.fromkeys(columns, "") | rows.get(version, {}) | {columns[0]: version} | escaped
    ordered = sorted(rows, key=lambda name: [int(number) for number in name.split(".")], reverse=True)
    written = [f"| {' | '.join(rows[name][column] for column in columns)} |" for name in ordered]
    path.write_text("\n".join([before + FIRST, "", header, rule, *written, "", LAST + after]))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]
