"""What `vllm bench serve` is given for a point, what it measured, and how that compares with an earlier measurement."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypedDict
from urllib.parse import urlsplit

from flagscale_deploy.deploy.server_status import InstanceStatus
from flagscale_deploy.support import shell

LATENCIES = ("ttft", "tpot", "itl", "e2el")
PERCENTILES = (50, 90, 99)
RATES = ("request_throughput", "output_throughput", "total_token_throughput", "goodput")
METRICS = (*(f"{name}_p{percent}" for name in LATENCIES for percent in PERCENTILES), *RATES)
"""Latencies in ms; requests, output tokens, all tokens, and requests within the goals of `--goodput`, per second."""
LONGEST = 9
"""Digits of the largest count that is believed."""
LAST_BYTES = 8000
"""So much of what the benchmark printed is sent where it fails."""
_VLLM_NAMES = {"goodput": ("request_goodput", "request_goodput:")}
"""vLLM's names where they are not ours; that with a colon is of versions before 0.12."""
TRUST = "--trust-remote-code"
_OF_THE_ENGINE = ("--tokenizer=", "--tokenizer-mode=", TRUST)
"""Flags of an engine that its benchmark needs, too."""


class PointFigures(TypedDict):
    """What was measured at a point, as bench.json has it."""

    rate: str  # requests a second, or inf
    concurrency: int | None  # requests at a time at most; None: no limit
    duration: float | None  # seconds
    completed: int
    failed: int
    metrics: dict[str, float]  # those of METRICS that this version of vLLM gives


@dataclass(frozen=True)
class Load:
    """What is the same at all points. `goodput` are goals such as `ttft:500`, in ms."""

    input_len: int = 512
    output_len: int = 128
    num_prompts: int = 100
    dataset: str = "random"
    dataset_path: str | None = None
    goodput: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """A rate of requests a second (`inf`: all at once), and how many there may be at a time."""

    rate: str = "inf"
    concurrency: int | None = None

    def __str__(self) -> str:
        limit = "" if self.concurrency is None else f", {self.concurrency} at a time"
        return f"rate {self.rate}{limit}"


class ResultError(Exception):
    """What the benchmark left is no result that can be read."""


def points(rates: Sequence[str], concurrencies: Sequence[int]) -> tuple[Point, ...]:
    """Return all points of rates and limits, each once, in the order given."""
    return tuple(dict.fromkeys(Point(*pair) for pair in product(rates or ("inf",), concurrencies or (None,))))


def command(engine: InstanceStatus, url: str, load: Load, point: Point) -> list[str]:
    """Return the words of `vllm bench serve` for a point, but where its result goes.

    `engine` is one of the engines that serve the model, by whose tokenizer prompts are made.
    """
    words = ["vllm", "bench", "serve", f"--base-url={url}", f"--model={engine.argv[2]}"]
    words += [f"--served-model-name={engine.served_name}", "--endpoint=/v1/completions"]
    words += [word for word in engine.argv[3:] if word.startswith(_OF_THE_ENGINE)]
    words += [f"--dataset-name={load.dataset}", f"--num-prompts={load.num_prompts}", f"--request-rate={point.rate}"]
    if load.dataset_path is not None:
        words += [f"--dataset-path={load.dataset_path}"]
    if load.dataset == "random":
        words += [f"--random-input-len={load.input_len}", f"--random-output-len={load.output_len}", "--ignore-eos"]
    if point.concurrency is not None:
        words += [f"--max-concurrency={point.concurrency}"]
    words += [f"--percentile-metrics={','.join(LATENCIES)}"]
    words += [f"--metric-percentiles={','.join(map(str, PERCENTILES))}", "--save-result"]
    return [*words, *(["--goodput", *load.goodput] if load.goodput else [])]


def script(words: Sequence[str], url: str, state: str, environment: str) -> str:
    """Return bash that runs a benchmark in an environment, and prints its result alone.

    `state` is the deployment's directory below the home directory. The key of its secrets goes into the benchmark's
    environment. What the benchmark writes is in a directory that is removed, also where it is interrupted. There is no
    proxy on the way to `url`, and the certificate that was sent with the secrets is trusted.
    """
    place = urlsplit(url)
    trust = '[ ! -f "$secrets/tls.crt" ] || export SSL_CERT_FILE="$secrets/tls.crt"' if place.scheme == "https" else ""
    direct = shell.quote(place.hostname or "")
    return f"""umask 077
exec 3>&1 >&2
directory=$(mktemp -d "${{TMPDIR:-/tmp}}/fsd-bench-XXXXXXXX") || exit
trap 'rm -rf "$directory"' EXIT
trap 'exit 143' TERM INT HUP
secrets=$HOME/{shell.quote(state)}/secrets
if [ -f "$secrets/env" ]; then set -a; . "$secrets/env"; set +a; fi
[ -z "${{VLLM_API_KEY:-}}" ] || export OPENAI_API_KEY="$VLLM_API_KEY"
{environment}
{trust}
export no_proxy="${{no_proxy:+$no_proxy,}}"{direct} TMPDIR="$directory"
export NO_PROXY="$no_proxy"
command -v vllm >/dev/null || {{ echo 'there is no command vllm'; exit 127; }}
{shell.join(words[:3])} --result-dir="$directory" --result-filename=result.json {shell.join(words[3:])} \\
  >"$directory/output" 2>&1
code=$?
if [ $code = 0 ] && [ -f "$directory/result.json" ]; then cat "$directory/result.json" >&3; exit; fi
tail -c {LAST_BYTES} "$directory/output"
[ $code = 0 ] && exit 1
exit $code
"""


def read_result(data: bytes, load: Load, point: Point) -> PointFigures:
    """Return what a result file of vLLM has. Unknown keys, and values that are no numbers, are left out.

    Raises ResultError where it is no JSON object, or counts no requests.
    """
    try:
        result = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ResultError("it is not JSON") from error
    if not isinstance(result, dict):
        raise ResultError("it is no JSON object")
    completed = _count(result.get("completed"))
    if completed is None:
        raise ResultError("it does not count the requests that were completed")
    failed = _count(result.get("failed"))
    metrics = {name: figure for name in METRICS if (figure := _figure(result, _names(name))) is not None}
    return {
        "rate": point.rate,
        "concurrency": point.concurrency,
        "duration": _figure(result, ("duration",)),
        "completed": completed,
        "failed": max(0, load.num_prompts - completed) if failed is None else failed,
        "metrics": metrics,
    }


def regressions(
    now: Iterable[PointFigures], before: Mapping[Point, Mapping[str, float]], limits: Mapping[str, float]
) -> list[str]:
    """Return where a metric is worse than before by more than its limit, in percent, or was not measured.

    Latencies get worse upwards, all else downwards.
    """
    problems = []
    for figures in now:
        point = Point(figures["rate"], figures["concurrency"])
        for metric, limit in limits.items():
            old, new = before.get(point, {}).get(metric), figures["metrics"].get(metric)
            if old is None or new is None:
                missing = "the baseline" if old is None else "this measurement"
                problems.append(f"{point}: {missing} has no {metric}")
                continue
            worse = old - new if metric in RATES else new - old
            if worse > abs(old) * limit / 100:
                change = f"{worse / old * 100:.1f} %" if old else "from 0"
                problems.append(f"{point}: {metric} is worse by {change}: {old:.2f} → {new:.2f} (limit {limit:g} %)")
    return problems


def read_baseline(text: str) -> dict[Point, dict[str, float]]:
    """Return the metrics of each point of a bench.json. Raises ResultError where it is none."""
    try:
        content = json.loads(text)
        return {
            Point(str(figures["rate"]), figures["concurrency"]): {
                metric: number for metric in METRICS if (number := _figure(figures["metrics"], (metric,))) is not None
            }
            for figures in content["points"]
        }
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ResultError("it is no bench.json") from error


def _names(metric: str) -> tuple[str, ...]:
    """Return the names that vLLM has for a metric."""
    name, _, percentile = metric.rpartition("_")
    if name not in LATENCIES:
        return _VLLM_NAMES.get(metric, (metric,))
    median = (f"median_{name}_ms",) if percentile == "p50" else ()
    return (f"{percentile}_{name}_ms", *median)


def _figure(result: Mapping[str, object], names: Iterable[str]) -> float | None:
    for name in names:
        value = result.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                continue
            if math.isfinite(number):
                return number
    return None


def _count(value: object) -> int | None:
    right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**LONGEST
    return value if right and isinstance(value, int) else None
