"""Let ssh read the configuration of $HOME where that is not the home directory of the user database.

ssh takes the home directory from the user database, whatever $HOME says. In some containers of CI systems the two
differ, and what has been set up is in $HOME.
"""

from __future__ import annotations

import atexit
import os
import pwd
import re
import shutil
import tempfile
from pathlib import Path

from flagscale_deploy.transport.ssh_config_files import ConfigFile, directive


def is_sshs(home: str) -> bool:
    """Return whether a directory is the home directory that ssh uses."""
    try:
        return os.path.samefile(home, pwd.getpwuid(os.getuid()).pw_dir)
    except (OSError, KeyError):
        return False


def with_home(files: tuple[ConfigFile, ...], home: str) -> tuple[str, ...]:
    """Return the words that make ssh read these files as if `home` were its home directory; none where it is.

    Else they are copied to a private directory, with the paths of `home` written out.
    """
    return () if is_sshs(home) else ("-F", _copied(files, home))


def _copied(files: tuple[ConfigFile, ...], home: str) -> str:
    folder = Path(tempfile.mkdtemp(prefix="flagscale-deploy-ssh-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copies = [_copy(file, folder, home) for file in files]
    defaults = f'Match all\nUserKnownHostsFile "{home}/.ssh/known_hosts" "{home}/.ssh/known_hosts2"\n'
    top = folder / "config"
    top.write_text("".join(f'Match all\nInclude "{copy}"\n' for copy in copies) + defaults)
    return str(top)


def _copy(file: ConfigFile, folder: Path, home: str) -> Path:
    lines = []
    for at, line in enumerate(file.lines):
        if at in file.included:
            lines += [f'Include "{_copy(included, folder, home)}"' for included in file.included[at]]
        elif directive(line)[0] == "match":
            lines.append(line)
        else:
            lines.append(re.sub(r"(?<=[\s\"'=])~/", lambda _: f"{home}/", line))
    descriptor, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(descriptor, "w", errors="surrogateescape") as copy:
        copy.write("\n".join(lines) + "\n")
    return Path(name)
