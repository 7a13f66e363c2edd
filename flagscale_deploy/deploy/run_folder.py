"""A run's folder on the operator's disk, `<exp_dir>/runs/<run_id>/`, which only its owner can read."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flagscale_deploy.errors import InputError
from flagscale_deploy.plan.json_schema import plan_json
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.secrets.json_texts import redacted_json
from flagscale_deploy.support.paths import Held, make_directory, safe_name, write_file, write_folder
from flagscale_deploy.support.planted import refuse_planted_output

REMEDY = "set experiment.exp_dir to another folder, or free disk space"


def new_run_id() -> str:
    """Return a unique name for a run, which sorts by time."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"


def runs(exp_dir: str) -> Path:
    """Return the folder for runs; create it if it is missing.

    Raises InputError where that is not possible, and where another user has put a part of it into /tmp or the like.
    """
    path = Path(exp_dir) / "runs"
    refuse_planted_output(path)
    make_directory(path, REMEDY)
    return path


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. All that we write into it goes through `redact` first.

    `path` is its name, which is shown; it is written to by `here`, once it is made.
    """

    path: Path
    redact: Callable[[str], str] = str
    held: Held | None = None

    @classmethod
    def make(cls, exp_dir: str, run_id: str, redact: Callable[[str], str] = str) -> RunFolder:
        """Create the folder with mode 0700. Raises InputError where that is not possible."""
        path = runs(exp_dir) / run_id
        make_directory(path, REMEDY, fresh=True)
        return cls(path, redact, Held(path))

    @property
    def here(self) -> Path:
        """Return a path that leads to this very folder, whatever takes its name meanwhile."""
        return self.held.path if self.held else self.path

    def close(self) -> None:
        """Let go of it: from now on it is only a name."""
        if self.held is not None:
            self.held.close()

    @property
    def events(self) -> Path:
        """Return the file of progress events."""
        return self.path / "events.jsonl"

    @property
    def logs(self) -> Path:
        """Return the folder for collected logs."""
        return self.path / "logs"

    def write_plan(self, plan: Plan, *, hides: bool = False) -> None:
        """Write plan.json and, by host, the scripts that are sent; with `hides`, others will read those, too.

        Raises InputError where that is not possible.
        """
        self.write_json("plan.json", plan_json(plan))
        hide = self.redact if hides else str
        scripts = {host: {name: hide(text) for name, text in files.items()} for host, files in plan.scripts.items()}
        write_scripts(self.here / "scripts", scripts)

    def write_json(self, name: str, content: Mapping[str, object]) -> None:
        """Write a JSON file. Raises InputError where that is not possible."""
        encode = partial(json.dumps, indent=2, ensure_ascii=False)
        self.write(name, redacted_json(content, encode, self.redact) + "\n")

    def write(self, name: str, text: str) -> None:
        """Write a text without secrets. Raises InputError where that is not possible."""
        try:
            write_file(self.here / name, text, name, REMEDY)
        except InputError as error:
            raise InputError.at(str(self.path / name), error.faults[0].problem, REMEDY) from error


def write_scripts(directory: Path, scripts: Mapping[str, Mapping[str, str]]) -> list[Path]:
    """Write `{host: {name: text}}` as `<directory>/<host>/<name>`, executable. Returns the files.

    Raises InputError where that is not possible.
    """
    written = []
    for host, files in scripts.items():
        written += write_folder(directory / safe_name(host), files, 0o700)
    return written
