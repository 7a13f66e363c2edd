"""How a program on a host answers: one line of JSON a message, behind a prefix no login banner prints."""

import json
import sys
from typing import Any

PREFIX = "@fsd1 "


def say(**message: Any) -> None:
    """Send one message to the operator, at once."""
    sys.stdout.write(PREFIX + json.dumps(message) + "\n")
    sys.stdout.flush()
