"""What takes too long for each change is run with FSD_FAULTS=all (`make faults`)."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("FSD_FAULTS") == "all" else ["test_groups_at_length.py"]
