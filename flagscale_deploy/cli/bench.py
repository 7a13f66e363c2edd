"""The command `bench`: measure latency and throughput of a deployment."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.option_types import DURATION, MOST_TOKENS, TEXT, Whole
from flagscale_deploy.cli.options import DEPLOYMENT, JSON, command, options, request_of

if TYPE_CHECKING:
    from flagscale_deploy.api.benchmarking import BenchOptions
    from flagscale_deploy.output.console import Console

MOST_POINTS, MOST_AT_A_TIME = 100, 100_000
GOAL = re.compile(r"(ttft|tpot|e2el):\d{1,9}(\.\d{1,6})?")
_NUMBER = re.compile(r"\d{1,6}(\.\d{1,6})?")
LENGTH = Whole(1, MOST_TOKENS)


@click.command(
    cls=Command, section="measure", example="flagscale-deploy bench -i hosts.yaml --name qwen --rate 1,2,4,inf"
)
@click.option("--rate", metavar="LIST", type=TEXT, default="inf", show_default=True,
              help="Requests a second at the points, such as 1,2,4,inf; inf sends all at once.")  # fmt: skip
@click.option("--concurrency", metavar="LIST", type=TEXT, default="",
              help="Requests at a time at most, such as 1,8,64; each with each rate. Default: no limit.")  # fmt: skip
@click.option("--input-len", metavar="N", type=LENGTH, default=512, show_default=True,
              help="Tokens of a prompt, with --dataset random.")  # fmt: skip
@click.option("--output-len", metavar="N", type=LENGTH, default=128, show_default=True,
              help="Tokens of an answer, with --dataset random.")  # fmt: skip
@click.option("--num-prompts", metavar="N", type=Whole(1, 10_000_000), default=100, show_default=True,
              help="Requests at each point.")  # fmt: skip
@click.option("--dataset", metavar="NAME", type=TEXT, default="random", show_default=True,
              help="The prompts: a name that `vllm bench serve --dataset-name` has.")  # fmt: skip
@click.option("--dataset-path", metavar="PATH", type=TEXT, help="Its file on the host, or its name at Hugging Face.")
@click.option("--goodput", metavar="METRIC:MS", type=TEXT, multiple=True,
              help="Count requests within this goal, such as ttft:500 (may be given often).")  # fmt: skip
@click.option("--from", "source", metavar="HOST", type=TEXT,
              help="The host to send from. Default: the one that has the endpoint.")  # fmt: skip
@click.option("--model", metavar="NAME", type=TEXT, help="The model, where the deployment serves several.")
@click.option("--timeout", metavar="DURATION", type=DURATION, default="1h", show_default=True,
              help="Time limit of a point.")  # fmt: skip
@click.option("--baseline", metavar="FILE|RUN", type=TEXT, help="An earlier bench.json, or the run that has it.")
@click.option("--max-regression", metavar="METRIC=PERCENT%", type=TEXT, multiple=True,
              help="Exit with 1 where a metric is worse than the baseline by more (may be given often).")  # fmt: skip
@click.option("--force", is_flag=True, help="Measure also while requests of others run.")
@options(*DEPLOYMENT, JSON)
@command
def bench(console: Console, *, as_json: bool, **words: Any) -> int:
    """Measure latency and throughput with `vllm bench serve`, through the endpoint that clients use.

    One point after the other is measured: each --rate with each --concurrency.
    """
    from flagscale_deploy import api
    from flagscale_deploy.api.benchmarking import bench_json
    from flagscale_deploy.output import bench as view

    chosen = _chosen(words)
    request = request_of(console, words)
    with console.progress("bench") as progress:
        report = api.bench(request, chosen, progress)
    if as_json:
        console.json(bench_json(report))
    else:
        view.show_bench(console, report)
    return report.exit_code


def _chosen(words: dict[str, Any]) -> BenchOptions:
    """Take the options of a measurement out of a command's words. Raises InputError for those that make no sense."""
    from flagscale_deploy.api.benchmarking import BenchOptions
    from flagscale_deploy.deploy.benchmark import Load, points
    from flagscale_deploy.errors import InputError

    rates = [_rate(word) for word in words.pop("rate").split(",")]
    limits = [_limit(word) for word in words.pop("concurrency").split(",") if word]
    chosen = points(rates, limits)
    if len(chosen) > MOST_POINTS:
        raise InputError.at("--rate", f"{len(chosen)} points", f"measure {MOST_POINTS} at most")
    goals = words.pop("goodput")
    for goal in goals:
        if not GOAL.fullmatch(goal):
            raise InputError.at("--goodput", f"{goal!r} is no goal", "give ttft, tpot or e2el and ms: ttft:500")
    regressions = dict(_regression(word) for word in words.pop("max_regression"))
    if bool(regressions) != (words["baseline"] is not None):
        raise InputError.at("--baseline", "goes with --max-regression", "give both, or none of them")
    load = ("input_len", "output_len", "num_prompts", "dataset", "dataset_path")
    own = ("source", "model", "force", "timeout", "baseline")
    return BenchOptions(
        points=chosen,
        load=Load(**{name: words.pop(name) for name in load}, goodput=goals),
        limits=regressions,
        **{name: words.pop(name) for name in own},
    )


def _rate(word: str) -> str:
    """Return a rate as it is written in bench.json."""
    from flagscale_deploy.errors import InputError

    if word == "inf":
        return word
    if not _NUMBER.fullmatch(word) or not float(word):
        raise InputError.at("--rate", f"{word!r} is no rate", "give requests a second, or inf: 1,2,4,inf")
    return f"{float(word):g}"


def _limit(word: str) -> int:
    from flagscale_deploy.errors import InputError

    if not re.fullmatch(r"\d{1,6}", word, re.ASCII) or not 1 <= int(word) <= MOST_AT_A_TIME:
        raise InputError.at("--concurrency", f"{word!r} is no number of requests", "give numbers from 1 on: 1,8,64")
    return int(word)


def _regression(word: str) -> tuple[str, float]:
    """Return metric and percent of `METRIC=PERCENT%`."""
    from flagscale_deploy.deploy.benchmark import METRICS
    from flagscale_deploy.errors import InputError
    from flagscale_deploy.support.suggest import suggest

    metric, _, percent = word.partition("=")
    if metric not in METRICS:
        raise InputError.at("--max-regression", f"no metric {metric!r}", suggest(metric, METRICS))
    number = percent.removesuffix("%")
    if not _NUMBER.fullmatch(number) or not math.isfinite(float(number)):
        raise InputError.at("--max-regression", f"{word!r} has no percentage", "give it as ttft_p99=20%")
    return metric, float(number)
