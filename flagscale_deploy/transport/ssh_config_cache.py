"""Remember on disk what `ssh -G` answered, as long as the files that it read stay as they are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from flagscale_deploy.remote.system.files import make_private_directory
from flagscale_deploy.transport.ssh_settings import Answer

KEPT_SECONDS = 30 * 86400
SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""$XDG_CACHE_HOME may be a shared place: no link is followed, and nobody waits for a pipe."""
LIMIT = 64 << 20
"""Files of more bytes than this are not read."""


def default_cache() -> Path:
    """Return the directory of answers: on Linux below $XDG_CACHE_HOME if that is an absolute path, else ~/.cache."""
    return platformdirs.user_cache_path("flagscale-deploy") / "ssh"


class SshConfigCache:
    """Answers in one file for each state of the configuration, readable by the user alone, one line an answer."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def load(self, state: str) -> dict[str, Answer]:
        """Return the answers for a state, by key. What is damaged, or another user could have written, is ignored."""
        if self._directory is None:
            return {}
        answers = {}
        with contextlib.suppress(OSError, ValueError):
            with open(os.open(self._path(state), os.O_RDONLY | SAFELY), "rb") as file:
                status = os.fstat(file.fileno())
                private = status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o022
                lines = file.read(LIMIT).splitlines() if private and stat.S_ISREG(status.st_mode) else []
            for line in lines:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    answers[str(entry["key"])] = _checked(entry["answer"])
        return answers

    def add(self, state: str, answers: Mapping[str, Answer]) -> None:
        """Remember answers, and remove the files of states that are long gone."""
        if self._directory is None or not answers:
            return
        text = "".join(json.dumps({"key": key, "answer": answer}) + "\n" for key, answer in answers.items())
        with contextlib.suppress(OSError):
            make_private_directory(self._directory)
            path = self._path(state)
            fresh = not path.exists()
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | SAFELY, 0o600)
            with os.fdopen(descriptor, "ab", buffering=0) as file:
                file.write(text.encode())
            if fresh:
                self._remove_old()

    def _remove_old(self) -> None:
        assert self._directory is not None
        for path in self._directory.iterdir():
            if time.time() - path.stat().st_mtime > KEPT_SECONDS:
                path.unlink()

    def _path(self, state: str) -> Path:
        assert self._directory is not None
        return self._directory / f"{hashlib.sha256(state.encode(errors='surrogateescape')).hexdigest()}.jsonl"


def _checked(answer: object) -> Answer:
    if not isinstance(answer, dict) or not all(isinstance(values, list) for values in answer.values()):
        raise TypeError("no answer")
    return {str(keyword): [str(value) for value in values] for keyword, values in answer.items()}
