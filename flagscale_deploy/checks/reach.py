"""Judge whether hosts can be reached and used. Later checks leave out the hosts that fail one of these."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import isfinite
from statistics import median

from flagscale_deploy.checks.conditions import environment, no_facts, no_ray, on, passed
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.errors import (
    AuthenticationError,
    ConnectError,
    HostError,
    HostKeyError,
    NoReplyError,
    TcpError,
)
from flagscale_deploy.plan.network import SLOW_SECONDS
from flagscale_deploy.support.units import counted

QUIET = "put this first into ~/.bashrc on the host: [[ $- == *i* ]] || return  "
SKEW_SECONDS = 5.0


def tcp(context: Context) -> Iterator[Finding]:
    """Check that the SSH port of every host accepts connections: name, route, firewall."""
    yield from _failing(context, lambda error: isinstance(error, TcpError))


def ssh(context: Context) -> Iterator[Finding]:
    """Check that an SSH server answers there, and that the connection lasts; also that this machine can make one."""
    others = TcpError | HostKeyError | AuthenticationError
    yield from _failing(context, lambda error: isinstance(error, ConnectError) and not isinstance(error, others))


def host_key(context: Context) -> Iterator[Finding]:
    """Check that known_hosts has the host's key; a warning for a host whose key the inventory says not to verify."""
    unverified = [name for name in context.facts if context.inventory[name].host_key_checking == "off"]
    for name in unverified:
        yield Finding(
            name,
            "its key is not verified (host_key_checking: off): secrets go to whoever answers",
            "a key in known_hosts",
            "set host_key_checking: strict, and add the key to known_hosts",
            "warning",
        )
    yield from _failing(context, lambda error: isinstance(error, HostKeyError))


def login(context: Context) -> Iterator[Finding]:
    """Check that the host accepts the login."""
    yield from _failing(context, lambda error: isinstance(error, AuthenticationError))


def clean_shell(context: Context) -> Iterator[Finding]:
    """Check that a login without a terminal runs our command, and prints nothing of its own (a warning)."""
    for finding in _failing(context, lambda error: isinstance(error, NoReplyError)):
        cure = f"{QUIET} ({on(context, finding.host, 'true')} shows what it prints)" if finding.host else ""
        yield replace(finding, remedy=finding.remedy or cure)
    for name, facts in context.facts.items():
        if facts.noise:
            lines = facts.noise.strip().splitlines()
            yield Finding(
                name,
                f"its login prints: {lines[0][:80] if lines else 'blank lines'}",
                "no output of a login without a terminal",
                f"{QUIET} ({on(context, name, 'true')} shows it)",
                "warning",
            )


def python(context: Context) -> Iterator[Finding]:
    """Check that a Python runs our programs, and that it is 3.8 or later."""
    for finding in _failing(context, lambda error: not isinstance(error, ConnectError | NoReplyError)):
        yield replace(finding, remedy=finding.remedy or _look_at_python(context, finding.host))
    for name, facts in context.facts.items():
        version = [int(part) for part in re.findall(r"\d{1,4}", facts.probe_python)[:2]]
        if len(version) == 2 and version < [3, 8]:
            remedy = f"install Python 3.8 or later, and set `python:` for {name} in the inventory to its path"
            yield Finding(name, f"Python {facts.probe_python}", "3.8 or later", remedy)


def writable(context: Context) -> Iterator[Finding]:
    """Check that the user may write to the home directory, /tmp and /dev/shm: nothing of ours needs sudo."""
    for name, facts in context.facts.items():
        if facts.unwritable:
            paths = ", ".join(facts.unwritable)
            first = facts.unwritable[0]
            cure = on(context, name, "chmod", "1777", first, root=True) if first in ("/tmp", "/dev/shm") else ""
            yield Finding(
                name,
                f"{facts.user or 'the user'} cannot write to {paths}",
                "home, /tmp and /dev/shm are writable",
                cure or f"make it writable for {facts.user}, or free space: {on(context, name, 'ls', '-ld', first)}",
            )


def processes_visible(context: Context) -> Iterator[Finding]:
    """Check that /proc shows the processes of all users: with hidepid, users of GPUs and ports are unknown."""
    for name, facts in context.facts.items():
        if not facts.sees_everyone:
            yield Finding(
                name,
                "/proc hides the processes of other users (hidepid)",
                "all processes are visible",
                on(context, name, "mount", "-o", "remount,hidepid=0", "/proc", root=True),
                "warning",
            )


def clock(context: Context) -> Iterator[Finding]:
    """Check that the clocks agree: with each other for three or more hosts, else with this machine's."""
    asked = {name: facts for name, facts in context.facts.items() if facts.clock and facts.asked_at}
    skews = {name: facts.clock - facts.asked_at for name, facts in asked.items()}
    skews = {name: skew for name, skew in skews.items() if isfinite(skew)}
    usual = median(skews.values()) if len(skews) > 2 else 0.0
    reference = "the other hosts" if len(skews) > 2 else "this machine"
    for name, skew in skews.items():
        off = skew - usual
        if abs(off) > SKEW_SECONDS:
            yield Finding(
                name,
                f"its clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} {reference}",
                f"within {SKEW_SECONDS:.0f} s",
                on(context, name, "timedatectl", "set-ntp", "true", root=True),
                "warning",
            )
    if skews:
        yield passed(f"at most {max(abs(skew - usual) for skew in skews.values()):.1f} s apart")


def resolver(context: Context) -> Iterator[Finding]:
    """Check that DNS answers or refuses in time: Ray asks for an outside name, and without a reply waits 20 s."""
    for name, facts in context.facts.items():
        if facts.resolver_seconds >= SLOW_SECONDS and "RES_OPTIONS" not in environment(context, name):
            yield Finding(
                name,
                f"its DNS does not answer within {facts.resolver_seconds:.1f} s (Ray and engines will wait 1 s)",
                "an answer, or a refusal at once",
                f'repair its DNS resolver, or limit it: env: {{RES_OPTIONS: "timeout:1 attempts:1"}} for {name}',
                "warning",
            )


def _look_at_python(context: Context, host: str) -> str:
    if not host:
        return ""
    target = context.inventory[host]
    words = (
        ["docker", "ps", "-a", "--filter", f"name={target.container}"] if target.container else [target.python, "-V"]
    )
    return f"check it: {on(context, host, *words)}"


def _failing(context: Context, is_mine: Callable[[HostError], bool]) -> Iterator[Finding]:
    """Yield a finding for each host whose error belongs to a check, or how many hosts passed it."""
    errors = {name: seen.error for name, seen in context.observations.items() if seen.error is not None}
    for name, error in errors.items():
        if is_mine(error):
            yield Finding(name, error.problem, "", error.remedy)
    if not any(map(is_mine, errors.values())) and context.facts:
        yield passed(counted(len(context.facts), "host"))


def _res_needless(context: Context) -> str:
    return no_facts(context) or (no_ray(context) if context.spec else "")


REACH = (
    Check("tcp", "reach", tcp, "its SSH port answers", skippable=False),
    Check("ssh", "reach", ssh, "an SSH server", skippable=False),
    Check("host-key", "reach", host_key, "a key in known_hosts", skippable=False),
    Check("login", "reach", login, "an accepted login", skippable=False),
    Check("clean-shell", "reach", clean_shell, "no output of its own"),
    Check("python", "reach", python, "3.8 or later", skippable=False),
    Check("writable", "reach", writable, "home, /tmp and /dev/shm", no_facts),
    Check("processes-visible", "reach", processes_visible, "/proc without hidepid", no_facts, "warning"),
    Check("clock", "reach", clock, "within 5 s", no_facts, "warning", blind="no host reported its time"),
    Check("resolver", "reach", resolver, "an answer in 1 s", _res_needless, "warning"),
)
