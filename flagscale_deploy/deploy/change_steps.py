"""The steps in which groups of a running deployment are changed, and their names in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

STAGE = "change"
Step = Literal["drain", "stop", "start", "return"]
STEPS: Mapping[str, str] = {
    "drain": "out of its router, until it has no request",
    "stop": "stopping",
    "start": "starting",
    "return": "back behind its router",
}
