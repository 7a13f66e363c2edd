"""The oracle of `test_published.py` over a folder of FlagScale's own files, where FSD_FLAGSCALE_CONFIGS names one.

Every experiment of it is planned as its YAML asks, or refused with the error that it deserves. Without the variable
there is no such test.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flagscale_deploy.errors import InputError
from tests.unit.config import rules
from tests.unit.config.test_published import planned, refuse_difference

FOLDER = os.environ.get("FSD_FLAGSCALE_CONFIGS")
FOUR_HOSTS = "".join(f"10.7.0.{number} slots=8\n" for number in (4, 3, 2, 1))


def experiments(folder: Path) -> list[Path]:
    """Return the files that mount a group under `serve`."""
    paths = [path for path in sorted(folder.rglob("*.yaml")) if path.parent.name == "conf"]
    return [path for path in paths if "defaults:" in path.read_text(encoding="utf-8")]


if FOLDER is not None:
    ROOT = Path(FOLDER)

    @pytest.mark.parametrize("path", experiments(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
    def test_an_experiment_is_planned_as_it_asks_or_refused(path: Path, tmp_path: Path) -> None:
        hosts = tmp_path / "hostfile.txt"
        hosts.write_text(FOUR_HOSTS, encoding="utf-8")
        wrong = rules.refused(path)
        if wrong is None:
            refuse_difference(rules.asked_by(rules.read(path)), planned(path, str(hosts)))
            return
        with pytest.raises(InputError, match=wrong):
            planned(path, str(hosts))
