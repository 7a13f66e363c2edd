"""Logs, as they come or when they came."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from rich.text import Text

from flagscale_deploy.console import Console
from flagscale_deploy.errors import HostError
from flagscale_deploy.logs import Collected
from flagscale_deploy.transport.fleet import answers, failures


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
                        "files": dict(each.files),
                        "problems": each.problems,
                    }
                    for name, each in found.items()
                },
                "unread": {name: error.problem for name, error in failed.items()},
            }
        )
    else:
        rows = [
            (name, len(each.files), f"{each.bytes:,}", each.folder, "; ".join(each.problems))
            for name, each in found.items()
        ]
        console.table("Logs collected", ("HOST", "FILES", "BYTES", "FOLDER", ""), rows)
    return unread(console, failed)


def line_printer(console: Console, hosts: Sequence[str], as_json: bool) -> Callable[[str, str, str], None]:
    """Prints log lines as they come: behind host and file on a terminal and where there are several hosts."""
    width = max(len(host) for host in hosts)
    writing = threading.Lock()
    colors = {host: ("cyan", "magenta", "green", "blue", "yellow", "red")[at % 6] for at, host in enumerate(hosts)}

    def show(host: str, file: str, line: str) -> None:
        with writing:
            if as_json:
                console.raw(json.dumps({"host": host, "file": file, "line": line}, ensure_ascii=False))
                return
            name = console.clean(PurePosixPath(file).name).replace("\n", "\\n")  # a host may call a file anything
            prefix = Text(f"{host:<{width}} ", style=colors[host]).append(f"{name} ", style="dim")
            console.out.print(prefix.append(console.clean(line), style=""))

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
