"""Where the commands of the pages are typed: a clone, a home, the pages' files, `flagscale-deploy` on PATH."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.docs.pages import REPOSITORY, files

SECONDS = 240


class Workplace:
    """A directory with the clone's samples, the pages' files, and a home of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.home = directory, directory / "home"
        for name in ("examples", "inventories", "templates"):
            shutil.copytree(REPOSITORY / name, directory / name)
        self.write(files())
        command = directory / "bin/flagscale-deploy"
        python = f"PYTHONPATH={REPOSITORY} exec {sys.executable} -W error::ResourceWarning"
        self.write({"bin/flagscale-deploy": f'#!/bin/sh\n{python} -m flagscale_deploy "$@"\n'})
        command.chmod(0o755)
        self.home.mkdir()
        self.env = {"HOME": str(self.home), "PATH": f"{command.parent}:{os.environ['PATH']}", "LANG": "C.UTF-8"}

    def write(self, texts: dict[str, str]) -> None:
        """Write files, by their path in the directory."""
        for name, text in texts.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def type(self, line: str, **variables: str) -> str:
        """Return what a command line prints on standard output. It has to end well."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.directory,
            env=self.env | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}exit status {done.returncode}"
        return done.stdout

    def type_until_line(self, line: str) -> str:
        """Return what a command line that goes on prints first. It is ended as by Ctrl-C, and has to say so."""
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {line}"],
                cwd=self.directory,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )
            assert process.stdout is not None
            with process:
                first = process.stdout.readline()
                os.killpg(process.pid, signal.SIGINT)
                rest = process.stdout.read()
                code = process.wait(SECONDS)
            output.seek(0)
            assert first, f"$ {line}\n{output.read()}"
            assert code == 130, f"$ {line}\n{output.read()}exit status {code}"
            return first + rest
