"""Show logs while they arrive, what was collected, and diagnoses."""

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
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.fleet import answers, failures

SHOWN = 20
"""Remarks on a host's files that the table shows at most."""


def show_collected(console: Console, collected: Mapping[str, Collected | HostError], as_json: bool) -> int:
    """Show `logs -o`: how much each host sent, and problems. Return the exit status."""
    received, failed = answers(collected), failures(collected)
    if as_json:
        console.json(
            {
                "schema": 1,
                "hosts": {
                    name: {
                        "folder": str(host_logs.folder),
                        "bytes": host_logs.bytes,
                        "received": host_logs.received,
                        "files": dict(host_logs.files),
                        "cut": dict(host_logs.cut),
                        "older": host_logs.older,
                        "problems": host_logs.problems,
                        "limit": host_logs.limit,
                    }
                    for name, host_logs in received.items()
                },
                "unread": {name: error.problem for name, error in failed.items()},
            }
        )
    else:
        _table(console, received)
    return max(show_limits(console, received), show_failures(console, failed))


def show_limits(console: Console, collected: Mapping[str, Collected]) -> int:
    """Print which hosts' logs were not fully collected because of a limit. Return the exit status."""
    reached = {name: host_logs.limit for name, host_logs in collected.items() if host_logs.limit}
    for name, limit in reached.items():
        console.error(f"✗ {name}: {limit}")
    return 1 if reached else 0


def _table(console: Console, collected: Mapping[str, Collected]) -> None:
    rows = [
        (name, len(host_logs.files), f"{host_logs.bytes:,}", host_logs.folder, "; ".join(_remarks(host_logs)))
        for name, host_logs in collected.items()
    ]
    console.table("Logs collected", ("HOST", "FILES", "BYTES", "FOLDER", ""), rows)


def _remarks(collected: Collected) -> Iterator[str]:
    """Yield remarks on a host's files, the first of each kind."""
    if collected.received < collected.bytes:
        yield f"{collected.received:,} bytes are new"
    if collected.older:
        yield f"{counted(collected.older, 'older file')} left out"
    if collected.cut:
        name, size = collected.cut[0]
        more = f", and {counted(len(collected.cut) - 1, 'more file')}" if len(collected.cut) > 1 else ""
        yield f"cut: {size:,} bytes of {name}{more}"
    yield from collected.problems[:SHOWN]
    if len(collected.problems) > SHOWN:
        yield f"and {counted(len(collected.problems) - SHOWN, 'more remark')} (--json has all)"


def show_diagnosed(
    console: Console,
    diagnosis: Diagnosis | None,
    collected: Mapping[str, Collected | HostError],
    folder: Path | None,
    as_json: bool,
) -> int:
    """Show `logs --diagnose`: the cause, and the hosts whose logs could not be read. Return the exit status."""
    failed = failures(collected)
    reached = show_limits(console, answers(collected))
    if as_json:
        lost = {name: error.problem for name, error in failed.items()}
        cause = None if diagnosis is None else asdict(diagnosis)
        console.json({"schema": 1, "diagnosis": cause, "folder": folder and str(folder), "unread": lost})
        return max(reached, show_failures(console, failed))
    if folder is not None and collected:
        _table(console, answers(collected))
        console.print()
    if diagnosis is None:
        console.print("nothing in these logs looks like an error")
    else:
        show_diagnosis(console, diagnosis)
    return max(reached, show_failures(console, failed))


def show_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """Show the first cause in logs: host, file and line, the cause, and what to do."""
    rows = [("host", diagnosis.host), ("file", diagnosis.file), ("line", diagnosis.line)]
    rows += [("cause", diagnosis.cause), ("remedy", diagnosis.remedy), ("source", diagnosis.source)]
    rows += [("note", diagnosis.note)]
    console.print("first cause in the logs:")
    for name, text in rows:
        if text:
            console.print(f"  {name:<6}  {text}")


def line_printer(console: Console, hosts: Sequence[str], as_json: bool) -> Lines:
    """Return a function that prints log lines as they arrive, with host and file before each."""
    width = max(len(host) for host in hosts)
    writing = threading.Lock()
    colors = {host: ("cyan", "magenta", "green", "blue", "yellow", "red")[at % 6] for at, host in enumerate(hosts)}

    def show(host: str, file: str, lines: Sequence[str]) -> None:
        if as_json:
            text = console.json_lines({"host": host, "file": file, "line": line} for line in lines)
        else:
            name = console.clean_lines([PurePosixPath(file).name])[0]  # a file on a host may have any name
            prefix = console.styled(Text(f"{host:<{width}} ", style=colors[host]).append(f"{name} ", style="dim"))
            text = "".join(f"{prefix}{line}\n" for line in console.clean_lines(lines))
        with writing:
            console.write(text)

    return show


def show_unread(console: Console, results: Mapping[str, int | HostError]) -> int:
    """Show which hosts logs did not come from, after those that came were shown. Return the exit status."""
    if not any(answers(results).values()) and not failures(results):
        console.note("no logs: nothing of this deployment is recorded on these hosts")
    return show_failures(console, failures(results))


def show_failures(console: Console, failed: Mapping[str, HostError]) -> int:
    """Print the errors of hosts. Return the exit status."""
    for error in failed.values():
        console.error(f"✗ {error.lines[0]}", *error.lines[1:])
    return max((error.exit_code for error in failed.values()), default=0)
