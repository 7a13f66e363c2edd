"""Check the command lines of instances with the parser of vLLM itself."""

from __future__ import annotations

from collections.abc import Iterator

from flagscale_deploy.checks.conditions import model_of, no_plan, passed, ranks
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.plan.versions import CHECK as VLLM_VERSION
from flagscale_deploy.plan.versions import SINCE, is_older
from flagscale_deploy.support.suggest import nearest

NAME = "engine-arguments"


def engine_arguments(context: Context) -> Iterator[Finding]:
    """Let the vLLM on each host parse the flags and values of its ranks."""
    too_old = {fault.where for fault in context.faults if fault.check == VLLM_VERSION}
    for instance, rank in ranks(context):
        parsed = (context.parsed or {}).get(rank.name)
        if parsed is None:
            continue
        model = model_of(context, instance)
        where = f"{model.where}: " if model and model.where else ""
        version = context.facts[rank.host].vllm if rank.host in too_old else None
        for flag in parsed.unknown:
            if flag in SINCE and is_older(version, SINCE[flag]):
                continue  # vllm-version reports it
            near = nearest(flag, parsed.known)
            yield Finding(
                rank.host,
                f"{where}--{flag} is unknown to the vLLM on this host",
                "flags that vLLM knows",
                f"did you mean --{near}?" if near else "remove it, or install a vLLM that has it",
            )
        if parsed.broken:
            yield Finding(
                rank.host,
                f"vLLM can't be imported: {parsed.broken}",
                "a vLLM that can be imported",
                "correct venv or before_start, or reinstall vLLM on this host",
            )
        elif parsed.error and not parsed.unknown:
            yield Finding(rank.host, f"{where}{parsed.error}", "values that vLLM accepts", "correct the value")
    hosts = dict.fromkeys(rank.host for _, rank in ranks(context) if rank.name in (context.parsed or {}))
    if hosts:
        yield passed(f"accepted by vLLM on {', '.join(hosts)}")


def _unread(context: Context) -> str:
    if (why := no_plan(context)) or context.parsed:
        return why
    silent = dict.fromkeys(rank.host for _, rank in ranks(context) if rank.host in context.silent)
    return f"{', '.join(silent)} did not answer" if silent else "vLLM did not parse them"


ENGINE = (Check(NAME, "engine", engine_arguments, "flags that vLLM knows", _unread),)
