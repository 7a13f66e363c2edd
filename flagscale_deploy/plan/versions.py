"""Say which vLLM the command lines of a group need.

Source: the code of the published releases. A flag is in the release that is named here, and not in the one before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.plan.rank import Rank

SINCE: Final[Mapping[str, str]] = {
    "headless": "0.9.0",
    "data-parallel-size-local": "0.9.0",
    "data-parallel-start-rank": "0.9.0",
    "data-parallel-address": "0.9.0",
    "data-parallel-rpc-port": "0.9.0",
    "data-parallel-backend": "0.9.1",
    "enable-eplb": "0.9.2",
    "data-parallel-hybrid-lb": "0.10.0",
    "nnodes": "0.11.1",
    "node-rank": "0.11.1",
    "master-addr": "0.11.1",
    "master-port": "0.11.1",
    "data-parallel-external-lb": "0.11.1",
    "all2all-backend": "0.11.1",
    "shutdown-timeout": "0.18.0",
}
"""The first release with each flag. Flags of 0.8.5 and before are left out, and so are those that concern no group."""
CHECK = "vllm-version"


@dataclass(frozen=True)
class Need:
    """The oldest vLLM that serves something, and the flags that it came with."""

    version: str
    flags: tuple[str, ...]


def needed_vllm(ranks: Iterable[Rank]) -> Need | None:
    """Return what the command lines of a group need; None where every vLLM will do."""
    serving = [rank.argv for rank in ranks if rank.argv[:2] == ("vllm", "serve")]
    flags = dict.fromkeys(word[2:].partition("=")[0] for argv in serving for word in argv if word.startswith("--"))
    versions = {flag: SINCE[flag] for flag in flags if flag in SINCE}
    if not versions:
        return None
    newest = max(versions.values(), key=_numbers)
    return Need(newest, tuple(flag for flag, version in versions.items() if version == newest))


def is_older(version: str | None, needed: str) -> bool:
    """Return whether a vLLM is a release before the needed one; what is no release is not judged."""
    if not version or "dev" in version:
        return False
    own = _numbers(version)
    return len(own) > 1 and own < _numbers(needed)


def version_faults(facts: Mapping[str, Facts], instances: Iterable[InstancePlan]) -> list[Fault]:
    """Return the hosts whose vLLM is too old for the ranks that run on them."""
    return [
        Fault(host, f"vLLM {facts[host].vllm}, but {instance.name} needs {need.version} or later: --{need.flags[0]}",
              f"on {host}, in its environment: pip install 'vllm>={need.version}'"
              + ("; or let Ray start the ranks: deploy.executor: ray" if "nnodes" in need.flags else ""), CHECK)
        for instance in instances
        if (need := needed_vllm(instance.ranks)) is not None
        for host in dict.fromkeys(rank.host for rank in instance.members)
        if host in facts and is_older(facts[host].vllm, need.version)
    ]  # fmt: skip


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a release, `(0, 11, 1)`; none of what does not begin with two."""
    match = re.match(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", version)
    return tuple(int(part or 0) for part in match.groups()) if match else ()
