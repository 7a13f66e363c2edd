"""A world with a home and sshds of its own on loopback, where our connections are compared with what `ssh` does.

`World` starts this file as a program in mount, network and process namespaces of its own: the home directory of the
user database is a folder of the test there, /etc/hosts names loopback addresses, and nothing outlives it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

REPOSITORY = Path(__file__).parents[3]
NAMES = {
    "127.0.0.11": "gpu01",
    "127.0.0.12": "gpu02",
    "127.0.0.20": "bastion",
    "127.0.0.21": "s21",
    "127.0.0.22": "s22",
}
ECHO = "echo OK-$USER port ${SSH_CONNECTION##* } from ${SSH_CONNECTION%% *}"
SECONDS = 60.0
KEYS = ("op", "host", "ca", "other", *(f"many{number}" for number in range(1, 8)))

SSHD = """
HostKey {keys}/host
AuthorizedKeysFile {keys}/authorized
StrictModes no
UsePAM no
PidFile none
PermitRootLogin prohibit-password
"""


@dataclass
class Case:
    """Files of the home (`key:op` stands for a key of that name), servers as address, port and lines, and a command.

    `agent` has the names of keys; its socket is ~/agent.sock, and in the environment unless `agent_env` is false.
    `command` are words of our command line, run in the home; without, the host is connected to directly.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    inventory: str = "hosts: [gpu01]\n"
    servers: list[tuple[str, int, str]] = field(default_factory=list)
    agent: list[str] = field(default_factory=list)
    agent_env: bool = True
    default_key: bool = True
    known: bool = True
    host: str = "gpu01"
    command: list[str] | None = None
    without_ssh: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    ssh_words: list[str] = field(default_factory=list)


@dataclass
class Reply:
    """What came of it: our output or error, and that of ssh."""

    output: str = ""
    error: str = ""
    remedy: str = ""
    kind: str = ""
    ssh_code: int = -1
    ssh_output: str = ""
    ssh_error: str = ""
    log: str = ""


def obstacle() -> str:
    """Return why no such world can be made here; "" where it can."""
    if missing := [name for name in ("unshare", "ip", "ssh", "ssh-agent", "ssh-keygen") if not shutil.which(name)]:
        return f"no {', '.join(missing)}"
    if os.geteuid() != 0:
        return "makes namespaces: needs root"
    if not Path("/usr/sbin/sshd").exists():
        return "no sshd"
    return "" if subprocess.run(["unshare", "-mnp", "--fork", "true"], check=False).returncode == 0 else "no unshare"


class World:
    """The namespaces, with a process in them that plays cases."""

    def __init__(self, folder: Path) -> None:
        words = ["unshare", "-mnp", "--fork", "--kill-child", "--propagation", "private", sys.executable, "-m"]
        self._process = subprocess.Popen(
            [*words, "tests.component.transport.ssh_world", str(folder)],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def play(self, case: Case) -> Reply:
        """Return what comes of a case."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asdict(case)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the world has ended"
        return Reply(**json.loads(line))

    def __enter__(self) -> World:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(SECONDS)
        self._process.stdout.close()


class _Inside:
    """The process in the namespaces."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._home, self._keys = folder, Path(pwd.getpwuid(0).pw_dir), folder / "keys"
        needed = (sys.base_prefix, sys.prefix, REPOSITORY)
        below = (Path(path) for path in needed if Path(path).is_relative_to(self._home))
        self._borrowed = {path.relative_to(self._home).parts[0] for path in below}
        self._keys.mkdir()
        for name in KEYS:
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self._keys / name))
        _run("ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-m", "PKCS8", "-N", "", "-f", str(self._keys / "pkcs8"))
        shutil.copy(self._keys / "op", self._keys / "enc")
        shutil.copy(self._keys / "op.pub", self._keys / "enc.pub")
        _run("ssh-keygen", "-q", "-p", "-P", "", "-N", "a passphrase", "-f", str(self._keys / "enc"))
        _run("ssh-keygen", "-q", "-s", str(self._keys / "ca"), "-I", "op", "-n", "root", str(self._keys / "op.pub"))
        (self._keys / "op-cert.pub").rename(self._keys / "usercert")
        allowed = [(self._keys / name).read_text() for name in ("op.pub", "pkcs8.pub")]
        (self._keys / "authorized").write_text("".join(allowed))
        self._lay_out()

    def _lay_out(self) -> None:
        home = self._folder / "home"
        hosts = self._folder / "hosts"
        home.mkdir()
        lines = [f"{address} {name}" for address, name in NAMES.items()]
        hosts.write_text("\n".join(["127.0.0.1 localhost", "::1 ip6-localhost", *lines]) + "\n")
        Path("/run/sshd").mkdir(exist_ok=True)
        _run("ip", "link", "set", "lo", "up")
        for name in self._borrowed:
            (home / name).mkdir()
            _run("mount", "--bind", str(self._home / name), str(home / name))
        _run("mount", "--rbind", str(home), str(self._home))
        _run("mount", "--bind", str(hosts), "/etc/hosts")

    def play(self, case: Case) -> Reply:
        self._fill_home(case)
        os.environ.update({"HOME": str(self._home), "XDG_CACHE_HOME": str(self._home / "cache")})
        os.environ.pop("SSH_AUTH_SOCK", None)
        reply = Reply()
        with contextlib.ExitStack() as stack, _environment(case.env):
            for address, port, lines in case.servers:
                stack.enter_context(self._server(address, port, lines))
            if case.agent:
                stack.enter_context(self._agent(case))
            ssh = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", *case.ssh_words, case.host, ECHO]
            done = subprocess.run(
                ssh, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
            )
            reply.ssh_code, reply.ssh_output, reply.ssh_error = done.returncode, done.stdout, done.stderr
            self._ours(case, reply)
        log = self._folder / "sshd.log"
        reply.log = log.read_text(errors="replace") if log.exists() else ""
        log.unlink(missing_ok=True)
        return reply

    def _fill_home(self, case: Case) -> None:
        for path in (path for path in self._home.iterdir() if path.name not in self._borrowed):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self._home / ".ssh").mkdir(mode=0o700)
        host = (self._keys / "host.pub").read_text().split()[:2]
        names = [*NAMES.values(), *NAMES, "::1"] if case.known else []
        (self._home / ".ssh/known_hosts").write_text("".join(f"{' '.join([name, *host])}\n" for name in names))
        if case.default_key:
            shutil.copy(self._keys / "op", self._home / ".ssh/id_ed25519")
        (self._home / "inventory.yaml").write_text(case.inventory)
        for name, text in case.files.items():
            path = self._home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text.startswith("key:"):
                shutil.copy(self._keys / text[4:], path)
            else:
                filled = text.replace("{host}", " ".join(host)).replace(
                    "{ca}", (self._keys / "ca.pub").read_text().strip()
                )
                path.write_bytes(filled.encode("latin-1"))
            path.chmod(0o600)

    @contextlib.contextmanager
    def _server(self, address: str, port: int, lines: str) -> Iterator[None]:
        config = self._folder / f"sshd-{address}-{port}"
        if "{certificate}" in lines:
            public = str(self._keys / "host.pub")
            _run(
                "ssh-keygen",
                "-q",
                "-s",
                str(self._keys / "ca"),
                "-I",
                "x",
                "-h",
                "-n",
                lines.split("{certificate}")[1],
                public,
            )
            lines = f"HostCertificate {self._keys}/host-cert.pub"
        if "{userca}" in lines:
            lines = f"TrustedUserCAKeys {self._keys}/ca.pub\nAuthorizedKeysFile none"
        shown = f"[{address}]" if ":" in address else address
        # The first mention of a keyword counts.
        config.write_text(f"{lines}\nListenAddress {shown}:{port}\n" + SSHD.format(keys=self._keys))
        log = str(self._folder / "sshd.log")
        process = _started(["/usr/sbin/sshd", "-D", "-f", str(config), "-E", log], address, port)
        try:
            yield
        finally:
            process.terminate()
            process.wait(SECONDS)

    @contextlib.contextmanager
    def _agent(self, case: Case) -> Iterator[None]:
        path = str(self._home / "agent.sock")
        process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + SECONDS
        while not os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.01)
        for name in case.agent:
            _run("ssh-add", "-q", str(self._keys / name), env={**os.environ, "SSH_AUTH_SOCK": path})
        if case.agent_env:
            os.environ["SSH_AUTH_SOCK"] = path
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)

    def _ours(self, case: Case, reply: Reply) -> None:
        if case.command is not None:
            words = [sys.executable, "-m", "flagscale_deploy", *case.command]
            env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
            done = subprocess.run(
                words, cwd=self._home, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=SECONDS, check=False,
            )  # fmt: skip
            reply.output, reply.error, reply.kind = done.stdout, done.stderr, str(done.returncode)
            return
        from flagscale_deploy.errors import HostError
        from flagscale_deploy.inventory.load import load_inventory
        from flagscale_deploy.transport.base import run
        from flagscale_deploy.transport.ssh import SshConnection
        from flagscale_deploy.transport.ssh_config import Resolver
        from flagscale_deploy.transport.ssh_config_cache import SshConfigCache

        resolver = Resolver(None if case.without_ssh else shutil.which("ssh"), SshConfigCache(None))
        host = load_inventory(str(self._home / "inventory.yaml"))[case.host]
        connection = SshConnection(host, 10.0, resolver)
        try:
            reply.output = run(connection, ECHO, timeout=20).stdout.decode()
        except HostError as error:
            reply.error, reply.remedy, reply.kind = error.problem, error.remedy, type(error).__name__
        finally:
            connection.close()


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)


def _started(words: list[str], address: str, port: int) -> subprocess.Popen[bytes]:
    """Start an sshd, again where the port is still taken by one that has just ended."""
    deadline = time.monotonic() + SECONDS
    process = subprocess.Popen(words)
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
            if process.poll() is None:
                return process
        if process.poll() is not None:
            process = subprocess.Popen(words)
        time.sleep(0.02)
    raise RuntimeError(f"no sshd on {address}:{port}")


def _run(*words: str, env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr}")


def main() -> None:
    inside = _Inside(Path(sys.argv[1]))
    for line in sys.stdin:
        content: dict[str, Any] = json.loads(line)
        sys.stdout.write(json.dumps(asdict(inside.play(Case(**content)))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
