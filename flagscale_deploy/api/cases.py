"""The result of one phase or check on one host, as JUnit reports count them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flagscale_deploy import __version__
from flagscale_deploy.facts.model import Observation


@dataclass(frozen=True)
class Case:
    """One phase or check on one host (`host` is "" where it concerns all hosts).

    `lines` are the log lines that show why it failed; `number` counts prompts, from 1 on. `seconds` is what the phase
    took on all hosts, in the first of its cases only, so that the cases' sum is the whole.
    `busy`: it failed only because others have the GPUs or ports.
    """

    phase: str
    host: str
    state: Literal["passed", "failed", "skipped"]
    seconds: float = 0.0
    message: str = ""
    lines: tuple[str, ...] = ()
    number: int | None = None
    busy: bool = False

    @property
    def title(self) -> str:
        """Return the phase, with the number of its prompt."""
        return self.phase if self.number is None else f"{self.phase} {self.number}"


def versions_of(observations: Mapping[str, Observation]) -> dict[str, str]:
    """Return the versions of this tool, and of Python, Ray and vLLM on the hosts; several where hosts differ."""
    versions = {"flagscale-deploy": __version__}
    for name in ("python", "ray", "vllm"):
        differing = {getattr(observation.facts, name) for observation in observations.values() if observation.facts}
        if differing - {None}:
            versions[name] = ", ".join(sorted(differing - {None}))
    return versions
