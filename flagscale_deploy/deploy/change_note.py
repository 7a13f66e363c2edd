"""What records have of a change while groups of it are changed, or put back: pure.

On the way `back` a note has in `groups` all that may not serve, and in `done` what is still as the change wants it.
It has no step `drain` then: groups in that step run as before the change.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from flagscale_deploy.deploy.change_steps import Step
from flagscale_deploy.remote.messages.record import RecordedChange


def begun(note: RecordedChange, groups: Sequence[str], step: Step, *, back: bool) -> RecordedChange:
    """Return the note when a step of these groups begins."""
    if not back:
        return {**note, "groups": [*groups], "step": step}
    left, done = (_without(names, groups) for names in (note["groups"], note["done"]))
    return {**note, "groups": [*groups, *left], "step": "stop" if step == "drain" else step, "done": done}


def made(note: RecordedChange, groups: Collection[str], *, back: bool) -> RecordedChange:
    """Return the note when these groups are as the change wants them, or what they were on the way back."""
    left, done = (_without(names, groups) for names in (note["groups"], note["done"]))
    if back:
        return {**note, "groups": left, "step": "stop" if left else "", "done": done}
    return {**note, "groups": [], "step": "", "done": [*done, *groups]}


def _without(names: Sequence[str], others: Collection[str]) -> list[str]:
    return [name for name in names if name not in others]
