"""Read recipes from a folder of the site's files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from flagscale_deploy.errors import InputError
from flagscale_deploy.support.input_files import read_text
from flagscale_deploy.support.planted import refuse_planted
from flagscale_deploy.support.units import MIB

MOST_BYTES = 4 * MIB
MOST_NAMES = 20_000


@dataclass(frozen=True)
class Folder:
    """A folder with the tree of the site: `ORG/REPO/hw/HARDWARE/strategies/STRATEGY.json`."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def where(self, path: str) -> str:
        """Return the name of a file."""
        return str(self.path / path)

    def get(self, path: str) -> str | None:
        """Return the text of a file, None where there is none. Raises InputError."""
        file = self.path / path
        refuse_planted(self.path, file)
        return read_text(file, MOST_BYTES) if os.path.exists(file) else None

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, in order; none where there is no such folder. Raises InputError."""
        try:
            with os.scandir(self.path / folder) as entries:
                return sorted(entry.name for entry in islice(entries, MOST_NAMES))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise InputError.at(str(self.path / folder), f"cannot be read: {error.strerror}", _READABLE) from error


_READABLE = "make it readable for you"


def open_folder(path: str) -> Folder:
    """Return a folder of recipes. Raises InputError where there is none."""
    if not os.path.isdir(path):
        raise InputError.at("--recipes", f"there is no folder {path}", "name the folder that holds ORG/REPO/hw/…")
    return Folder(Path(path))
