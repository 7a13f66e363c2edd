"""Show what happened to a lock."""

from __future__ import annotations

from dataclasses import asdict

from flagscale_deploy.deploy.lock import Unlocked, describe_holder
from flagscale_deploy.output.console import Console


def show_unlock(console: Console, done: Unlocked) -> None:
    """Show `unlock`: whose lock was released, or that nobody holds it."""
    if done.state == "free":
        console.print(f"{done.host}: nobody holds the lock of {done.deployment}")
        if done.holder:
            console.print(f"  its last holder is gone: {describe_holder(done.holder)}")
    else:
        heard = f", last sign of life {done.silent:.0f} s ago" if done.silent is not None else ""
        console.print(
            f"{done.host}: the lock of {done.deployment} is free; ended: {describe_holder(done.holder)}{heard}"
        )


def unlock_json(done: Unlocked) -> dict[str, object]:
    """Return `unlock --json`."""
    return {"schema": 1, **asdict(done), "holder": dict(done.holder)}
