"""Check that hosts start the deployment again after a reboot, where that is configured."""

from __future__ import annotations

from collections.abc import Iterator

from flagscale_deploy.checks.conditions import no_spec, on
from flagscale_deploy.checks.types import Check, Context, Finding


def boot(context: Context) -> Iterator[Finding]:
    """Check that a host starts the deployment again after a reboot, where deploy.restart.boot asks for it."""
    idle = [name for name in context.facts if context.plan and "boot.sh" not in context.plan.scripts.get(name, {})]
    for name, facts in context.facts.items():
        if not facts.boot and name not in idle:
            container = bool(context.inventory[name].container)
            yield Finding(
                name,
                facts.boot_problem,
                "",
                "remove deploy.restart.boot"
                if container
                else f"{on(context, name, 'loginctl', 'enable-linger', facts.user, root=True)}; or install cron",
                "warning",
            )


def _not_asked(context: Context) -> str:
    if why := no_spec(context):
        return why
    return "" if context.spec and context.spec.restart.boot else "deploy.restart.boot is not set"


BOOT = (Check("boot", "reboot", boot, "a user systemd with lingering, or crontab", _not_asked, "warning"),)
