"""Check the command lines of instances with the parser of vLLM itself."""

from __future__ import annotations

from collections.abc import Iterator

from flagscale_deploy.checks.conditions import engines, model_of, no_plan, passed
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.support.suggest import nearest


def engine_arguments(context: Context) -> Iterator[Finding]:
    """Let the vLLM on each driver's host parse the flags and values of its instances."""
    for instance in engines(context):
        parsed = (context.parsed or {}).get(instance.name)
        if parsed is None:
            continue
        model = model_of(context, instance)
        where = f"{model.where}: " if model and model.where else ""
        for flag in parsed.unknown:
            near = nearest(flag, parsed.known)
            yield Finding(
                instance.driver,
                f"{where}--{flag} is unknown to the vLLM on this host",
                "flags that vLLM knows",
                f"did you mean --{near}?" if near else "remove it, or install a vLLM that has it",
            )
        if parsed.broken:
            yield Finding(
                instance.driver,
                f"vLLM can't be imported: {parsed.broken}",
                "a vLLM that can be imported",
                "correct venv or before_start, or reinstall vLLM on this host",
            )
        elif parsed.error and not parsed.unknown:
            yield Finding(instance.driver, f"{where}{parsed.error}", "values that vLLM accepts", "correct the value")
    hosts = dict.fromkeys(instance.driver for instance in engines(context) if instance.name in (context.parsed or {}))
    if hosts:
        yield passed(f"accepted by vLLM on {', '.join(hosts)}")


def _unread(context: Context) -> str:
    if (why := no_plan(context)) or context.parsed:
        return why
    silent = dict.fromkeys(instance.driver for instance in engines(context) if instance.driver in context.silent)
    return f"{', '.join(silent)} did not answer" if silent else "vLLM did not parse them"


ENGINE = (Check("engine-arguments", "engine", engine_arguments, "flags that vLLM knows", _unread),)
