"""`ray.util` of the stand-in."""

from __future__ import annotations

from typing import Any


def placement_group_table() -> dict[str, Any]:
    """There are no placement groups."""
    return {}
