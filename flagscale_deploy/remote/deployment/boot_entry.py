"""Make and remove the entry that starts a host's part of a deployment after a reboot.

It is a unit of the user's systemd, where that runs without a login (lingering), else a line `@reboot` in the user's
crontab. `remove` takes it away: only what is ours by its name or word for word; all other lines of a crontab stay byte
for byte.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import socket
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

from flagscale_deploy.remote.deployment import scripts, state
from flagscale_deploy.remote.system import gpus, subprocesses

COMMAND_SECONDS = 10.0
CRONTAB_BYTES = 1 << 20
"""A longer one is left alone: it is written back whole, or not at all."""
LINGER = Path("/var/lib/systemd/linger")


def mechanism(container: bool) -> Tuple[str, str]:
    """Return by what this host starts something for our user when it comes up, and why by nothing."""
    if container:
        return "", "nothing starts processes in a container after a reboot of its host"
    if lingers() and _systemctl("show-environment"):
        return "systemd", ""
    if shutil.which("crontab") is None:
        return "", "the user's systemd does not run without a login (lingering), and there is no crontab"
    try:
        read_crontab()
    except OSError as error:
        return "", str(error)
    return "crontab", ""


def remove(deployment: str, host: str) -> List[str]:
    """Remove our entry, if there is one; return what was removed, in words."""
    removed = []
    with contextlib.suppress(OSError):
        if disable(deployment, host):
            removed.append(str(unit_path(deployment, host)))
    with contextlib.suppress(OSError):
        if shutil.which("crontab") is not None and edit_crontab(take=line(deployment, host)):
            removed.append("crontab: " + line(deployment, host))
    return removed


def script(deployment: str, host: str) -> str:
    """Return the path of the script that starts this host's part after a reboot."""
    return str(state.directory(deployment, host) / "scripts" / "boot.sh")


def line(deployment: str, host: str) -> str:
    """Return our line of the crontab; a bare % would end the command (crontab(5))."""
    command = "/bin/bash %s # flagscale-deploy: %s on %s" % (
        shlex.quote(script(deployment, host)),
        *(state.file_name(name) for name in (deployment, host)),
    )
    return "@reboot " + command.replace("%", "\\%")


def read_crontab() -> bytes:
    """Return the user's crontab, byte for byte. Raises OSError where it can't be read."""
    done = _crontab("-l")
    if done.cut:
        raise OSError("crontab -l: it has more than %d KiB" % (CRONTAB_BYTES >> 10))
    if done.code == 0:
        return done.stdout
    complaint = done.stderr.decode("utf-8", "replace").strip()
    if "no crontab for" in complaint or (done.code == 1 and not complaint):
        return b""
    raise OSError("crontab -l: %s" % (complaint or "exit status %d" % (done.code or 0)))


def edit_crontab(add: Optional[str] = None, take: Optional[str] = None) -> bool:
    """Add a line that isn't there, or remove one; return whether that changed anything. Raises OSError."""
    with _alone():
        before = read_crontab()
        after = with_line(before, add.encode()) if add else without_line(before, (take or "").encode())
        if after == before:
            return False
        done = _crontab("-", stdin=after) if after else _crontab("-r")
        if done.code or read_crontab() != after:
            raise OSError(
                "crontab: %s" % (done.stderr.decode("utf-8", "replace").strip() or "it did not accept the line")
            )
        return True


def with_line(content: bytes, line: bytes) -> bytes:
    """Return a crontab with a line at its end, once."""
    if line in content.split(b"\n"):
        return content
    return content + (b"" if not content or content.endswith(b"\n") else b"\n") + line + b"\n"


def without_line(content: bytes, line: bytes) -> bytes:
    """Return a crontab without that very line."""
    return b"".join(other for other in content.splitlines(keepends=True) if other.rstrip(b"\n") != line)


def unit_path(deployment: str, host: str) -> Path:
    """Return the path of our unit of the user's systemd."""
    name = hashlib.sha256(("%s/%s" % (deployment, host)).encode()).hexdigest()[:12]
    return Path(os.path.expanduser("~")) / ".config/systemd/user" / ("flagscale-deploy-%s.service" % name)


def unit(deployment: str, host: str) -> str:
    """Return the unit's text. Its processes outlive it; on a home that hosts share, it is this host's alone."""
    path = script(deployment, host).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return "\n".join(
        (
            "[Unit]",
            "Description=flagscale-deploy brings back %s on %s"
            % tuple(state.file_name(name).replace("%", "%%") for name in (deployment, host)),
            "ConditionHost=%s" % socket.gethostname().replace("%", "%%"),
            "",
            "[Service]",
            "Type=oneshot",
            "RemainAfterExit=yes",
            "KillMode=process",
            "TimeoutStartSec=infinity",
            'ExecStart=/bin/bash "%s"' % path,
            "",
            "[Install]",
            "WantedBy=default.target",
            "",
        )
    )


def enable(deployment: str, host: str) -> None:
    """Write the unit, and the link that `systemctl --user enable` would make. It isn't started now."""
    path = unit_path(deployment, host)
    scripts.put(path, unit(deployment, host), 0o600)
    link = _wanted(path)
    link.parent.mkdir(exist_ok=True)
    if not os.path.lexists(str(link)):
        os.symlink("../" + path.name, str(link))
    _systemctl("daemon-reload")


def disable(deployment: str, host: str) -> bool:
    """Remove the unit, which ends a boot that is under way; return whether it was there."""
    path = unit_path(deployment, host)
    if not os.path.lexists(str(path)):
        return False
    _systemctl("stop", path.name)
    for file in (_wanted(path), path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(str(file))
    with contextlib.suppress(OSError):  # not empty
        os.rmdir(str(_wanted(path).parent))
    _systemctl("daemon-reload")
    return True


def lingers() -> bool:
    """Return whether the user's systemd runs from boot on."""
    return shutil.which("systemctl") is not None and (LINGER / gpus.user_of(os.getuid())).exists()


def _wanted(path: Path) -> Path:
    return path.parent / "default.target.wants" / path.name


def _systemctl(*words: str) -> bool:
    environ = {"XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR") or "/run/user/%d" % os.getuid()}
    try:
        return subprocesses.run(["systemctl", "--user", *words], COMMAND_SECONDS, environ).code == 0
    except OSError:
        return False


def _crontab(word: str, stdin: bytes = b"") -> subprocesses.EndedBytes:
    done = subprocesses.run_bytes(
        ["crontab", word], COMMAND_SECONDS, env={"LC_ALL": "C"}, stdin=stdin, kept=CRONTAB_BYTES
    )
    if done.code is None:
        raise OSError("crontab %s does not end within %g s" % (word, COMMAND_SECONDS))
    return done


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep other deployments from writing the crontab meanwhile. A lock on the directory leaves no file."""
    root = state.root()
    if not root.is_dir():
        yield
        return
    descriptor = os.open(str(root), os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
