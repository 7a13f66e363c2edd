"""Whether hosts can be reached and worked on. A host that failed one of these is no news to any later check."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import isfinite
from statistics import median

from flagscale_deploy.checks.conditions import environment, no_answer, no_ray, on, passed
from flagscale_deploy.checks.model import Check, Finding, Scene
from flagscale_deploy.errors import (
    AuthenticationError,
    ConnectError,
    HostError,
    HostKeyError,
    NoReplyError,
    TcpError,
    UnreachableError,
)
from flagscale_deploy.plan.network import SLOW_SECONDS
from flagscale_deploy.support.units import counted

QUIET = "put first into ~/.bashrc there: [[ $- == *i* ]] || return  "
SKEW_SECONDS = 5.0


def tcp(scene: Scene) -> Iterator[Finding]:
    """Whether the SSH port of every host takes a connection: name, route, firewall."""
    yield from _failing(scene, lambda error: isinstance(error, TcpError))


def ssh(scene: Scene) -> Iterator[Finding]:
    """Whether what answers there speaks SSH, and goes on speaking."""
    yield from _failing(scene, lambda error: isinstance(error, UnreachableError) and not isinstance(error, TcpError))


def host_key(scene: Scene) -> Iterator[Finding]:
    """Whether known_hosts has the key that the host shows."""
    yield from _failing(scene, lambda error: isinstance(error, HostKeyError))


def login(scene: Scene) -> Iterator[Finding]:
    """Whether the host lets the user in."""
    yield from _failing(scene, lambda error: isinstance(error, AuthenticationError))


def clean_shell(scene: Scene) -> Iterator[Finding]:
    """Whether a login runs what it is told and prints nothing of its own."""
    for each in _failing(scene, lambda error: isinstance(error, NoReplyError)):
        cure = f"{QUIET} ({on(scene, each.host, 'true')} shows what it does)" if each.host else ""
        yield replace(each, remedy=each.remedy or cure)
    for name, facts in scene.facts.items():
        if facts.noise:
            said = facts.noise.strip().splitlines()
            yield Finding(
                name,
                f"its login prints: {said[0][:80] if said else 'blank lines'}",
                "no output of a login without a terminal",
                f"{QUIET} ({on(scene, name, 'true')} shows it)",
                "warning",
            )


def python(scene: Scene) -> Iterator[Finding]:
    """Whether there is a Python that runs our programs, and it is 3.8 or later."""
    for each in _failing(scene, lambda error: not isinstance(error, ConnectError | NoReplyError)):
        yield replace(each, remedy=each.remedy or _look_at_python(scene, each.host))
    for name, facts in scene.facts.items():
        version = [int(part) for part in re.findall(r"\d{1,4}", facts.probe_python)[:2]]
        if len(version) == 2 and version < [3, 8]:
            remedy = f"install python3 of 3.8 or later, and name it with `python:` for {name} in the inventory"
            yield Finding(name, f"Python {facts.probe_python}", "3.8 or later", remedy)


def writable(scene: Scene) -> Iterator[Finding]:
    """Whether the user may write to the home directory, /tmp and /dev/shm, so that nothing needs sudo."""
    for name, facts in scene.facts.items():
        if facts.unwritable:
            paths = ", ".join(facts.unwritable)
            first = facts.unwritable[0]
            cure = on(scene, name, "chmod", "1777", first, root=True) if first in ("/tmp", "/dev/shm") else ""
            yield Finding(
                name,
                f"{facts.user or 'the user'} can't write to {paths}",
                "home, /tmp and /dev/shm can be written to",
                cure or f"make it writable for {facts.user}, or free space: {on(scene, name, 'ls', '-ld', first)}",
            )


def processes_visible(scene: Scene) -> Iterator[Finding]:
    """Whether /proc shows all processes: who holds a GPU or a port is not known where it is mounted with hidepid."""
    for name, facts in scene.facts.items():
        if not facts.sees_everyone:
            yield Finding(
                name,
                "/proc hides the processes of other users (hidepid)",
                "all processes can be seen",
                on(scene, name, "mount", "-o", "remount,hidepid=0", "/proc", root=True),
                "warning",
            )


def clock(scene: Scene) -> Iterator[Finding]:
    """Whether the clocks agree: with each other where there are three or more hosts, else with this machine's."""
    skews = {name: each.clock - each.asked_at for name, each in scene.facts.items() if each.clock and each.asked_at}
    skews = {name: skew for name, skew in skews.items() if isfinite(skew)}
    usual = median(skews.values()) if len(skews) > 2 else 0.0
    whose = "the other hosts" if len(skews) > 2 else "this machine"
    for name, skew in skews.items():
        off = skew - usual
        if abs(off) > SKEW_SECONDS:
            yield Finding(
                name,
                f"its clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} {whose}",
                f"within {SKEW_SECONDS:.0f} s",
                on(scene, name, "timedatectl", "set-ntp", "true", root=True),
                "warning",
            )
    if skews:
        yield passed(f"at most {max(abs(skew - usual) for skew in skews.values()):.1f} s apart")


def resolver(scene: Scene) -> Iterator[Finding]:
    """Whether a name outside is answered or refused in time: Ray asks for one, and a resolver that hangs costs 20 s."""
    for name, facts in scene.facts.items():
        if facts.resolver_seconds >= SLOW_SECONDS and "RES_OPTIONS" not in environment(scene, name):
            yield Finding(
                name,
                f"its DNS does not answer within {facts.resolver_seconds:.1f} s (Ray and engines will wait 1 s)",
                "an answer, or none at once",
                f'mend its resolver, or keep to that: env: {{RES_OPTIONS: "timeout:1 attempts:1"}} for {name}',
                "warning",
            )


def _look_at_python(scene: Scene, host: str) -> str:
    if not host:
        return ""
    known = scene.inventory[host]
    words = ["docker", "ps", "-a", "--filter", f"name={known.container}"] if known.container else [known.python, "-V"]
    return f"look at it: {on(scene, host, *words)}"


def _failing(scene: Scene, is_mine: Callable[[HostError], bool]) -> Iterator[Finding]:
    errors = {name: each.error for name, each in scene.observations.items() if each.error is not None}
    for name, error in errors.items():
        if is_mine(error):
            yield Finding(name, error.problem, "", error.remedy)
    if not any(map(is_mine, errors.values())) and scene.facts:
        yield passed(counted(len(scene.facts), "host"))


def _res_needless(scene: Scene) -> str:
    return no_answer(scene) or (no_ray(scene) if scene.spec else "")


REACH = (
    Check("tcp", "reach", tcp, "its SSH port answers", skippable=False),
    Check("ssh", "reach", ssh, "an SSH server", skippable=False),
    Check("host-key", "reach", host_key, "a key that known_hosts has", skippable=False),
    Check("login", "reach", login, "a login", skippable=False),
    Check("clean-shell", "reach", clean_shell, "no output of its own"),
    Check("python", "reach", python, "3.8 or later", skippable=False),
    Check("writable", "reach", writable, "home, /tmp and /dev/shm", no_answer),
    Check("processes-visible", "reach", processes_visible, "/proc without hidepid", no_answer, "warning"),
    Check("clock", "reach", clock, "within 5 s", no_answer, "warning", blind="no host told its time"),
    Check("resolver", "reach", resolver, "an answer in 1 s", _res_needless, "warning"),
)
