"""Measure a deployment with `vllm bench serve`, from one of its hosts, through the endpoint that clients use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from flagscale_deploy.api.inspecting import entrances_for, environment_of, host_command
from flagscale_deploy.api.request import Request
from flagscale_deploy.deploy.benchmark import (
    TRUST,
    Load,
    Point,
    PointFigures,
    ResultError,
    command,
    read_baseline,
    read_result,
    regressions,
    script,
)
from flagscale_deploy.deploy.run_folder import RunFolder, new_run_id
from flagscale_deploy.deploy.server_status import InstanceStatus
from flagscale_deploy.deploy.status import Status, look
from flagscale_deploy.deploy.token_looks import TokenLooks
from flagscale_deploy.errors import BusyError, FaultsError, HostError, InputError, RemoteError
from flagscale_deploy.events import Event, Sink, silent
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.vllm import is_on
from flagscale_deploy.remote.deployment.state import ROOT, file_name
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.support.input_files import read_text
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.base import LateError, Outcome
from flagscale_deploy.transport.base import run as run_command
from flagscale_deploy.transport.fleet import Fleet

FILE = "bench.json"
SCHEMA = 1
EXTRA = ("vllm[bench]", "No module named 'pandas'", "No module named 'datasets'")
"""What vLLM says where a data set needs packages that `pip install vllm` leaves out."""


@dataclass(frozen=True)
class BenchOptions:
    """The points and what to do at them; `source` is the host to send from, by default that of the endpoint.

    `limits` are percent by metric; `timeout` is for one point, in seconds.
    """

    points: tuple[Point, ...]
    load: Load = field(default_factory=Load)
    source: str | None = None
    model: str | None = None
    force: bool = False
    timeout: float = 3600.0
    baseline: str | None = None
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchReport:
    """What was measured, from where, and what became worse than the baseline."""

    deployment: str
    model: str
    endpoint: str
    host: str
    points: tuple[PointFigures, ...]
    regressions: tuple[str, ...]
    folder: Path

    @property
    def exit_code(self) -> int:
        """Return 1 where a request failed or a metric became worse than its limit."""
        return int(bool(self.regressions) or any(point["failed"] for point in self.points))


def bench(request: Request, options: BenchOptions, say: Sink = silent) -> BenchReport:
    """Measure each point, one after the other, and write bench.json into a run folder, also where a later one fails.

    Raises BusyError where requests of others run, HostError where a benchmark fails, InputError for a baseline that
    does not have the points.
    """
    exp_dir = request.spec.exp_dir if request.spec else f"outputs/{request.deployment}"
    before = _baseline(options, Path(exp_dir))
    measured: list[PointFigures] = []
    with request.fleet() as fleet:
        tokens = TokenLooks()
        current = look(fleet, request.deployment, request.inventory.head.name, tokens=tokens)
        engine, entrance = _target(current, entrances_for(request, current), options.model)
        source = options.source or entrance.driver
        if source not in fleet.hosts:
            remedy = f"use one of: {', '.join(fleet.hosts)}"
            raise InputError.at("--from", f"{source} is no host of this inventory", remedy)
        redact = Redactor(request.secrets).redact
        with closing(RunFolder.make(exp_dir, new_run_id(), redact)) as folder:

            def report() -> BenchReport:
                worse = regressions(measured, before, options.limits) if options.baseline else []
                names = (current.deployment, engine.served_name, entrance.endpoint, source)
                return BenchReport(*names, tuple(measured), tuple(worse), folder.path)

            try:
                for number, point in enumerate(options.points, 1):
                    if not options.force:
                        _refuse_busy(look(fleet, request.deployment, request.inventory.head.name, tokens=tokens))
                    title = f"{point}: {number} of {counted(len(options.points), 'point')}"
                    say(Event("bench", "running", source, title))
                    text = _script(request, engine, entrance, (options.load, point), fleet.hosts[source])
                    measured.append(_measure(fleet, text, options, (source, point)))
                    say(Event("bench", "done", source, f"{point}: {measured[-1]['completed']} completed"))
            finally:
                if measured:
                    folder.write_json(FILE, bench_json(report()))
            return report()


def bench_json(report: BenchReport) -> dict[str, object]:
    """Return what bench.json and `--json` have."""
    return {
        "schema": SCHEMA,
        "deployment": report.deployment,
        "model": report.model,
        "endpoint": report.endpoint,
        "host": report.host,
        "points": list(report.points),
        "regressions": list(report.regressions),
        "folder": str(report.folder),
    }


def _baseline(options: BenchOptions, exp_dir: Path) -> dict[Point, dict[str, float]]:
    """Return the metrics of the baseline: a file, a run's folder, or the name of one. Raises InputError."""
    if options.baseline is None:
        return {}
    path = Path(options.baseline)
    if not os.path.exists(path) and path.name == options.baseline:
        path = exp_dir / "runs" / options.baseline
    path = path / FILE if os.path.isdir(path) else path
    try:
        before = read_baseline(read_text(path))
    except ResultError as error:
        raise InputError.at(f"--baseline {path}", str(error), f"give the {FILE} of an earlier `bench`") from error
    missing = [str(point) for point in options.points if point not in before]
    if missing:
        problem = f"it does not have the point {missing[0]}"
        raise InputError.at(f"--baseline {path}", problem, f"it has: {'; '.join(map(str, before))}")
    return before


def _target(
    current: Status, entrances: tuple[InstanceStatus, ...], model: str | None
) -> tuple[InstanceStatus, InstanceStatus]:
    """Return an engine of the model and the server that clients ask for it. Raises FaultsError where there is none."""
    engines = [server for server in current.instances if server.argv[:2] == ("vllm", "serve") and len(server.argv) > 2]
    names = list(dict.fromkeys(server.served_name for server in engines))
    if not names:
        raise FaultsError.at(current.deployment, "no vLLM serves in it", "`bench` measures what `vllm serve` serves")
    if model not in names and (model is not None or len(names) > 1):
        problem = f"no model of this name: {model}" if model else f"it serves {counted(len(names), 'model')}"
        raise InputError.at("--model", problem, f"name one of: {', '.join(names)}")
    engine = next(server for server in engines if server.served_name == (model or names[0]))
    entrance = next((server for server in entrances if server.model in ("", engine.model)), engine)
    if entrance.state != "ready":
        raise FaultsError.at(entrance.name, f"it is {entrance.state}", "wait until `status` shows that it is ready")
    return engine, entrance


def _refuse_busy(current: Status) -> None:
    """Raise BusyError where engines have requests, running or waiting, or do not say whether."""
    remedy = "wait until they are answered; --force measures beside them"
    for server in current.instances:
        metrics = server.metrics or {}
        requests = round(metrics.get("running", 0.0) + metrics.get("waiting", 0.0))
        if requests > 0:
            raise BusyError.at(server.name, f"it has {counted(requests, 'request')} of others", remedy)
        if "running" not in metrics:
            raise BusyError.at(server.name, "it does not count its requests", "--force measures all the same")


def _script(
    request: Request, engine: InstanceStatus, entrance: InstanceStatus, load: tuple[Load, Point], host: Host
) -> str:
    """Return the bash that measures a point from a host."""
    url = entrance.endpoint.removesuffix("/v1")
    state = f"{ROOT}/{file_name(request.deployment)}/{file_name(host.name)}"
    if not _trusts_code(request):
        engine = replace(engine, argv=tuple(word for word in engine.argv if not word.startswith(TRUST)))
    hook = (request.spec.before_start if request.spec else None) or ""
    return script(command(engine, url, *load), url, state, f"{environment_of(host)}{hook}")


def _trusts_code(request: Request) -> bool:
    """Return whether the configuration says to run a model's own code; the word of a host is not enough elsewhere."""
    flag = TRUST.removeprefix("--")
    models = request.spec.engines if request.spec else ()
    return any(flag in model.action_args or is_on(model.engine_args.get(flag)) for model in models)


def _measure(fleet: Fleet, text: str, options: BenchOptions, where: tuple[str, Point]) -> PointFigures:
    """Run the benchmark of a point on its host. Raises HostError."""
    name, point = where

    def act(host: Host) -> Outcome:
        return run_command(
            fleet.connection(host.name),
            host_command(host, text, "bash"),
            timeout=options.timeout,
            cancelled=fleet.cancelled,
            hold_input=True,
        )

    outcome = fleet.map(act, [name])[name]
    if isinstance(outcome, LateError):
        problem = f"the benchmark was not done at its time limit of {options.timeout:g} s ({point})"
        raise RemoteError(name, problem, "give it more with --timeout, or lower --num-prompts") from outcome
    if isinstance(outcome, HostError):
        raise outcome
    if outcome.exit_code != 0:
        raise _failure(name, point, outcome)
    try:
        figures = read_result(outcome.stdout, options.load, point)
    except ResultError as error:
        problem = f"the result of the benchmark cannot be read: {error}"
        raise RemoteError(name, problem, "the results of vLLM 0.32 are known to `bench`") from error
    if not figures["completed"]:
        raise RemoteError(name, f"not one request was answered ({point})", "try `call`; `logs --diagnose` says why")
    return figures


def _failure(name: str, point: Point, outcome: Outcome) -> RemoteError:
    """Return why a benchmark failed, with the end of what it printed."""
    lines = [line for line in outcome.stderr.decode(errors="replace").splitlines() if line.strip()]
    text, remedy = "\n".join(lines), "the lines above are the end of what it printed"
    if outcome.exit_code == 127:
        remedy = f"install vLLM in the environment of {name}, or choose another host with --from"
    elif any(word in text for word in EXTRA):
        remedy = f"pip install 'vllm[bench]' in the environment of {name}, or use --dataset random"
    elif "unrecognized arguments" in text or "invalid choice" in text:
        remedy = f"the vLLM of {name} does not have these options: use a newer one, or leave them out"
    last = lines[-1].strip() if lines else "it printed nothing"
    problem = f"`vllm bench serve` ended with exit status {outcome.exit_code} ({point}): {last}"
    return RemoteError(name, problem, remedy, lines[-15:])
