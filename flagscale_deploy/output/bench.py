"""Show what `bench` measured: a table of the points, and what became worse."""

from __future__ import annotations

from flagscale_deploy.api.benchmarking import BenchReport
from flagscale_deploy.deploy.benchmark import LATENCIES, PERCENTILES, PointFigures
from flagscale_deploy.output.console import Console

COLUMNS = ("RATE", "AT A TIME", "DONE", "FAILED", "TTFT ms", "TPOT ms", "ITL ms", "REQ/S", "TOKENS/S", "GOOD/S")


def show_bench(console: Console, report: BenchReport) -> None:
    """Show the points, latencies as p50/p90/p99; then regressions, and where bench.json is."""
    title = f"bench {report.deployment}: {report.model} at {report.endpoint}, from {report.host}; p50/p90/p99"
    console.table(title, COLUMNS, [_row(point) for point in report.points])
    for regression in report.regressions:
        console.error(regression)
    console.print("", f"written to {report.folder}/bench.json")


def _row(point: PointFigures) -> tuple[object, ...]:
    metrics = point["metrics"]
    latencies = [
        "/".join(_number(metrics.get(f"{name}_p{percent}")) for percent in PERCENTILES) for name in LATENCIES[:3]
    ]
    rates = [_number(metrics.get(name)) for name in ("request_throughput", "output_throughput")]
    good = _number(metrics["goodput"]) if "goodput" in metrics else ""
    limit = "" if point["concurrency"] is None else point["concurrency"]
    return (point["rate"], limit, point["completed"], point["failed"] or "", *latencies, *rates, good)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"
