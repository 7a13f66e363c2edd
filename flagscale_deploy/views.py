"""What commands print: values in, tables and lines out through a `Console`."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import PurePosixPath
from typing import Any

from rich.text import Text

from flagscale_deploy import shell
from flagscale_deploy.api import CheckReport, RunResult, describe
from flagscale_deploy.console import Console
from flagscale_deploy.deploy import RunFailedError
from flagscale_deploy.errors import HostError, InputError
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.logs import Collected
from flagscale_deploy.plan.model import InstancePlan, Plan
from flagscale_deploy.smoke import Prompt, Smoke
from flagscale_deploy.status import Status
from flagscale_deploy.stop import StopReport
from flagscale_deploy.stop import describe as describe_stop
from flagscale_deploy.transport.base import Outcome
from flagscale_deploy.transport.fleet import answers, failures


def show_inventory(console: Console, inventory: Inventory) -> None:
    """`hosts`."""
    head = inventory.head.name
    named = [name for name in inventory.groups if name not in ("all", "ungrouped")]
    groups = {host: [name for name in named if host in inventory.members(name)] for host in inventory.names}
    rows = [
        (
            host.name + (" (head)" if host.name == head else ""),
            "local" if host.connection == "local" else f"{host.user + '@' if host.user else ''}{host.address}"
            + (f":{host.port}" if host.port else ""),
            "probe" if host.gpus is None else host.gpus,
            host.type,
            host.node_ip or host.interface or "probe",
            ", ".join(groups[host.name]),
        )
        for host in inventory.hosts
    ]  # fmt: skip
    console.table(
        f"{len(rows)} hosts of {inventory.source}", ("HOST", "ADDRESS", "GPUS", "TYPE", "DATA NETWORK", "GROUPS"), rows
    )


def show_plan(console: Console, plan: Plan, show_scripts: bool) -> None:
    """`plan`."""
    console.print(f"deployment {plan.deployment}   digest {plan.digest[:19]}   run {plan.run_id}")
    if plan.ray.enabled:
        rows = [
            (
                node.host,
                node.role,
                node.node_ip,
                node.num_gpus,
                json.dumps(dict(node.resources)) if node.resources else "",
            )
            for node in plan.ray.nodes
        ]
        console.print()
        console.table(f"Ray cluster at {plan.ray.address}", ("HOST", "ROLE", "NODE IP", "GPUS", "RESOURCES"), rows)
    for instance in plan.instances:
        _show_instance(console, instance)
    console.print()
    steps = [
        (number, stage.name, ", ".join(stage.after), step.host, step.script)
        for number, stage in enumerate(plan.stages, 1)
        for step in stage.steps
    ]
    console.table("Steps", ("", "STAGE", "AFTER", "HOST", "SCRIPT"), steps)
    if show_scripts:
        for host, scripts in plan.scripts.items():
            for name, text in scripts.items():
                console.print(f"\n──── {host}: {name}")
                console.print(text.rstrip())


def _show_instance(console: Console, instance: InstancePlan) -> None:
    gpus = ", ".join(f"{host} [{','.join(map(str, indexes))}]" if indexes else f"{host} (no GPU)"
                     for host, indexes in instance.gpus.items())  # fmt: skip
    console.print(f"\n{instance.name} on {gpus}   executor {instance.executor}   endpoint {instance.endpoint}")
    console.print(f"    {shell.join(instance.argv)}")
    for name, value in instance.env.items():
        console.print(f"    {name}={shell.quote(value)}")


def show_check(console: Console, report: CheckReport) -> None:
    """`check`: what every host is, then everything that stands in the way."""
    rows = [
        (
            name,
            console.state("failed" if each.error else "ok"),
            each.error.problem if each.error else describe_facts(each.facts),
        )
        for name, each in report.observations.items()
    ]
    console.table(f"{len(rows)} hosts", ("HOST", "STATE", "FOUND"), rows)
    if report.faults:
        console.print(f"\n{len(report.faults)} problems:")
        for fault in report.faults:
            console.print(f"  ✗ {fault}")
    else:
        console.print("\nno problem found" + (": this deployment can be run" if report.plan else ""))


def describe_facts(facts: Any) -> str:
    """A host's facts in a line, with memory and disk."""
    gib = 1 << 30
    return (
        f"{describe(facts)}; {facts.cpus} CPUs, "
        f"{facts.memory_available / gib:.0f} of {facts.memory_total / gib:.0f} GiB free, disk {facts.disk_free / gib:.0f} GiB free, /dev/shm {facts.shm_free / gib:.1f} GiB"
    )


def check_json(report: CheckReport) -> dict[str, Any]:
    """`check --json`."""
    return {
        "schema": 1,
        "ok": report.exit_code == 0,
        "hosts": {
            name: {"error": each.error.problem} if each.error else {"facts": _plain(each.facts)}
            for name, each in report.observations.items()
        },
        "problems": [{"where": each.where, "problem": each.problem, "remedy": each.remedy} for each in report.faults],
    }


def show_run(console: Console, result: RunResult) -> None:
    """`run` that ended well: the endpoints, and a curl line to paste."""
    if result.up is None:
        assert result.status is not None
        console.print(
            f"{result.status.deployment} runs already with this very configuration (run {result.status.run_id})."
        )
    else:
        for name, seconds in result.up.ready_after.items():
            console.print(
                f"{name} is ready: first token {seconds:.1f} s after its start, {result.up.elapsed:.1f} s in all"
            )
    for endpoint, served in result.endpoints:
        console.print(f"\nendpoint {endpoint}")
        console.print(curl(endpoint, served, result.secured))
    if result.folder is not None:
        console.print(f"\nplan, scripts and events: {result.folder.path}")


def curl(endpoint: str, served_name: str, secured: bool) -> str:
    """A request to paste, in the form of FlagScale's README."""
    body = {
        "model": served_name,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Introduce Bruce Lee in details."},
        ],
        "max_tokens": 128,
    }
    key = ' \\\n  -H "Authorization: Bearer $VLLM_API_KEY"' if secured else ""
    return (
        f"curl {shell.quote(endpoint + '/chat/completions')} \\\n"
        f'  -H "Content-Type: application/json"{key} \\\n'
        f"  -d {shell.quote(json.dumps(body, ensure_ascii=False))}"
    )


def show_run_failure(console: Console, error: RunFailedError, name: str) -> None:
    """`run` that did not: what, where, why, and what was done about it."""
    failure = error.failure
    console.error(f"✗ {failure.error}")
    if failure.diagnosis is not None:
        console.error(f"\nfirst cause in the logs:\n  {failure.diagnosis}")
    if failure.logs:
        console.note(f"\nlogs: {sum(failure.logs.values())} files of {len(failure.logs)} hosts in {error.folder.logs}")
    for host, why in failure.unread.items():
        console.error(f"logs of {host} could not be collected: {why}")
    if failure.stopped is None:
        console.note(f"left as it is (--keep-on-failure); take it down with: flagscale-deploy stop --name {name}")
    else:
        console.note("what was started has been taken down:")
        show_stop(console, failure.stopped, to_error=True)


def show_stop(console: Console, report: StopReport, *, to_error: bool = False) -> None:
    """`stop` and `cleanup`."""
    write = console.note if to_error else console.print
    for host in report.hosts:
        write(f"  {host.host}: {describe_stop(host)}")
    for name, paths in report.removed.items():
        for path in paths:
            write(f"  {name}: removed {path}")
    if report.exit_code:
        console.error("not everything is verified gone; run the command again when the hosts can be reached")


def stop_json(report: StopReport) -> dict[str, Any]:
    """`stop --json`, `cleanup --json`."""
    return {
        "schema": 1,
        "ok": report.exit_code == 0,
        "hosts": {host.host: _plain(host) for host in report.hosts},
        "removed": {name: list(paths) for name, paths in report.removed.items()},
    }


def show_status(console: Console, status: Status) -> None:
    """`status`."""
    since = (
        f", since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(status.started_at))}" if status.started_at else ""
    )
    line = console.state(status.state)
    console.out.print(
        f"{status.deployment}: ", line, f"  run {status.run_id or '-'} of {status.operator or '-'}{since}", sep=""
    )
    if status.instances:
        rows = [
            (
                f"{each.model}/{each.replica}",
                console.state(each.state),
                each.driver,
                _gpus(each.gpus),
                each.endpoint,
                each.problem,
            )
            for each in status.instances
        ]
        console.print()
        console.table("Instances", ("INSTANCE", "STATE", "DRIVER", "GPUS", "ENDPOINT", ""), rows)
    if status.ray is not None:
        console.print()
        nodes = [(address, f"{gpus:g}") for address, gpus in status.ray.get("nodes", {}).items()]
        missing = status.ray.get("missing") or ([status.ray["why"]] if status.ray.get("why") else [])
        console.table("Ray nodes" + "".join(f"; missing: {each}" for each in missing), ("ADDRESS", "GPUS"), nodes)
    console.print()
    hosts = [
        (
            host.host,
            console.state(host.state),
            ", ".join(host.roles),
            host.processes,
            _duration(host.uptime),
            host.problem,
        )
        for host in status.hosts
    ]
    console.table("Hosts", ("HOST", "STATE", "ROLES", "PROCESSES", "UPTIME", ""), hosts)


def _gpus(gpus: Mapping[str, tuple[int, ...]]) -> str:
    return " ".join(f"{host}[{','.join(map(str, indexes))}]" for host, indexes in gpus.items() if indexes) or "none"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def run_json(result: RunResult) -> dict[str, Any]:
    """`run --json`, when it ended well."""
    return {
        "schema": 1,
        "verdict": "ready" if result.up else "already running",
        "run_id": result.plan.run_id if result.plan else result.status.run_id if result.status else None,
        "endpoints": [{"endpoint": endpoint, "model": served} for endpoint, served in result.endpoints],
        "ready_after": dict(result.up.ready_after) if result.up else {},
        "elapsed": result.up.elapsed if result.up else 0.0,
        "folder": str(result.folder.path) if result.folder else None,
    }


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
    return _unread(console, failed)


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
            prefix = Text(f"{host:<{width}} ", style=colors[host])
            console.out.print(
                prefix.append(f"{PurePosixPath(file).name} ", style="dim").append(console.clean(line), style="")
            )

    return show


def show_unread(console: Console, results: Mapping[str, int | HostError]) -> int:
    """`logs` that were shown: the hosts they did not come from."""
    if not any(answers(results).values()) and not failures(results):
        console.note("no logs: nothing of this deployment is recorded on these hosts")
    return _unread(console, failures(results))


def show_outcomes(console: Console, results: Mapping[str, Outcome | HostError], as_json: bool) -> int:
    """`exec`: every host's output, and its exit status where it is not 0."""
    found, failed = answers(results), failures(results)
    if as_json:
        ended = {name: {"exit_code": each.exit_code, "stdout": each.stdout.decode(errors="replace"),
                        "stderr": each.stderr.decode(errors="replace"), "seconds": round(each.elapsed, 3)}
                 for name, each in found.items()}  # fmt: skip
        console.json({"schema": 1, "hosts": ended, "failed": {name: error.problem for name, error in failed.items()}})
    else:
        show = line_printer(console, list(results), as_json=False)
        for name, each in found.items():
            for source, data in (("", each.stdout), ("stderr", each.stderr)):
                for line in data.decode(errors="replace").splitlines():
                    show(name, source, line)
            if each.exit_code:
                console.error(f"{name}: exit status {each.exit_code}")
    code = _unread(console, failed)
    return code or (1 if any(each.exit_code for each in found.values()) else 0)


def prompts(texts: Sequence[str], expectations: Sequence[str], min_tokens: int, max_tokens: int) -> list[Prompt]:
    """Prompts with the expectation of the same position. Raises InputError for one too many, or a bad expression."""
    asked = list(texts) or ["Introduce yourself in one sentence."]
    if len(expectations) > len(asked):
        raise InputError.at(
            "--expect", f"{len(expectations)} expectations for {len(asked)} prompts", "one for each --prompt"
        )
    for each in expectations:
        try:
            re.compile(each)
        except re.error as error:
            raise InputError.at("--expect", f"{each!r} is not a regular expression: {error}") from error
    wanted = [*expectations, *[None] * (len(asked) - len(expectations))]
    return [Prompt(text, expect, min_tokens, max_tokens) for text, expect in zip(asked, wanted, strict=True)]


def show_smoke(console: Console, result: Smoke) -> None:
    """`smoke`: a table with times."""
    rows = [
        (
            case.phase,
            case.host,
            console.state(case.state),
            f"{case.seconds:.1f} s" if case.seconds else "",
            case.message,
        )
        for case in result.cases
    ]
    console.table(f"smoke {result.deployment}", ("PHASE", "HOST", "STATE", "TIME", ""), rows)
    for case in result.cases:
        for line in case.lines:
            console.error(line)
    console.print(f"\n{'passed' if result.passed else 'FAILED'}; artifacts in {result.artifacts}")


def _unread(console: Console, failed: Mapping[str, HostError]) -> int:
    for error in failed.values():
        console.error(f"✗ {error}")
    return max((error.exit_code for error in failed.values()), default=0)
