"""Logs, as they come or when they came."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from rich.text import Text

from flagscale_deploy.diagnosis.find import Diagnosis
from flagscale_deploy.errors import HostError
from flagscale_deploy.logs import Collected, Lines
from flagscale_deploy.output.console import Console
from flagscale_deploy.transport.fleet import answers, failures

SHOWN = 20
"""Remarks on a host's files in the table."""


def show_collected(console: Console, collected: Mapping[str, Collected | HostError], as_json: bool) -> int:
    """`logs -o`: how much came from each host, and what is wrong with it."""
    found, failed = answers(collected), failures(collected)
    if as_json:
        console.json(
            {
                "schema": 1,
                "hosts": {
                    name: {
                        "folder": str(each.folder),
                        "bytes": each.bytes,
                        "received": each.received,
                        "files": dict(each.files),
                        "cut": dict(each.cut),
                        "older": each.older,
                        "problems": each.problems,
                        "limit": each.limit,
                    }
                    for name, each in found.items()
                },
                "unread": {name: error.problem for name, error in failed.items()},
            }
        )
    else:
        _table(console, found)
    return max(limited(console, found), unread(console, failed))


def limited(console: Console, found: Mapping[str, Collected]) -> int:
    """Say what was not collected because of a limit; the exit status that makes."""
    reached = {name: each.limit for name, each in found.items() if each.limit}
    for name, limit in reached.items():
        console.error(f"✗ {name}: {limit}")
    return 1 if reached else 0


def _table(console: Console, found: Mapping[str, Collected]) -> None:
    rows = [
        (name, len(each.files), f"{each.bytes:,}", each.folder, "; ".join(_remarks(each)))
        for name, each in found.items()
    ]
    console.table("Logs collected", ("HOST", "FILES", "BYTES", "FOLDER", ""), rows)


def _remarks(collected: Collected) -> Iterator[str]:
    """What is to be known of a host's files, the first of each kind."""
    if collected.received < collected.bytes:
        yield f"{collected.received:,} bytes came now"
    if collected.older:
        yield f"{collected.older} older left out"
    if collected.cut:
        name, size = collected.cut[0]
        more = f", and of {len(collected.cut) - 1} more" if len(collected.cut) > 1 else ""
        yield f"cut: {size:,} bytes of {name}{more}"
    yield from collected.problems[:SHOWN]
    if len(collected.problems) > SHOWN:
        yield f"and {len(collected.problems) - SHOWN} more remarks (--json has all)"


def show_diagnosed(
    console: Console,
    diagnosis: Diagnosis | None,
    collected: Mapping[str, Collected | HostError],
    folder: Path | None,
    as_json: bool,
) -> int:
    """`logs --diagnose`: the cause, and the hosts whose logs were not there to look at."""
    failed = failures(collected)
    reached = limited(console, answers(collected))
    if as_json:
        lost = {name: error.problem for name, error in failed.items()}
        found = None if diagnosis is None else asdict(diagnosis)
        console.json({"schema": 1, "diagnosis": found, "folder": folder and str(folder), "unread": lost})
        return max(reached, unread(console, failed))
    if folder is not None and collected:
        _table(console, answers(collected))
        console.print()
    if diagnosis is None:
        console.print("nothing in these logs looks like an error")
    else:
        show_diagnosis(console, diagnosis)
    return max(reached, unread(console, failed))


def show_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """The first cause in logs: where it stands, what it says, why, and what to do."""
    rows = [("host", diagnosis.host), ("file", diagnosis.file), ("line", diagnosis.line)]
    rows += [("cause", diagnosis.cause), ("remedy", diagnosis.remedy), ("source", diagnosis.source)]
    rows += [("note", diagnosis.note)]
    console.print("first cause in the logs:")
    for name, text in rows:
        if text:
            console.print(f"  {name:<6}  {text}")


def line_printer(console: Console, hosts: Sequence[str], as_json: bool) -> Lines:
    """Prints log lines as they come: behind host and file on a terminal and where there are several hosts."""
    width = max(len(host) for host in hosts)
    writing = threading.Lock()
    colors = {host: ("cyan", "magenta", "green", "blue", "yellow", "red")[at % 6] for at, host in enumerate(hosts)}

    def show(host: str, file: str, lines: Sequence[str]) -> None:
        if as_json:
            text = console.json_lines({"host": host, "file": file, "line": line} for line in lines)
        else:
            name = console.clean_lines([PurePosixPath(file).name])[0]  # a host may call a file anything
            prefix = console.styled(Text(f"{host:<{width}} ", style=colors[host]).append(f"{name} ", style="dim"))
            text = "".join(f"{prefix}{line}\n" for line in console.clean_lines(lines))
        with writing:
            console.write(text)

    return show


def show_unread(console: Console, results: Mapping[str, int | HostError]) -> int:
    """`logs` that were shown: the hosts they did not come from."""
    if not any(answers(results).values()) and not failures(results):
        console.note("no logs: nothing of this deployment is recorded on these hosts")
    return unread(console, failures(results))


def unread(console: Console, failed: Mapping[str, HostError]) -> int:
    """Say which hosts nothing came from; the exit status that makes."""
    for error in failed.values():
        console.error(f"✗ {error}")
    return max((error.exit_code for error in failed.values()), default=0)
