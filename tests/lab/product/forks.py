"""Commands of the product as forks of a process that has imported it: each saves the half second of its imports.

The process is started with the first command of a session, by `python -m tests.lab.product.forks DESCRIPTOR`, where the
descriptor is a socket of orders. A fork has the directory, environment, umask, words and standard output that its order
names, no other descriptors, and calls the console script's function. What Python itself reads of the environment when
it starts is `INTERPRETER` for all.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.lab.keepers import REPOSITORY

INTERPRETER = {"PYTHONPATH": str(REPOSITORY), "LANG": "C.UTF-8", "PYTHONWARNINGS": "error::ResourceWarning"}
PACKAGE = "flagscale_deploy"
ON_HOSTS = (f"{PACKAGE}.remote.programs.", f"{PACKAGE}.serve.")
"""What no command imports."""
ORDER_BYTES = 1 << 17


class Fork:
    """A command that runs: as much of `subprocess.Popen` as is needed of it."""

    def __init__(self, words: Sequence[str], directory: Path, env: Mapping[str, str], umask: int = -1) -> None:
        order = json.dumps({"words": words, "directory": str(directory), "env": dict(env), "umask": umask})
        self._news, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        (out, into_out), (err, into_err) = os.pipe(), os.pipe()
        try:
            socket.send_fds(_server().orders, [order.encode()], [far_end.fileno(), into_out, into_err])
        finally:
            far_end.close()
            os.close(into_out)
            os.close(into_err)
        self.stdout, self.stderr = open(out, "rb"), open(err, "rb")  # noqa: SIM115 (closed by who reads them)
        self.pid = self._hear(None)
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""
        try:
            return self.wait(0.0)
        except BlockingIOError:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status when it has ended. Raises TimeoutError."""
        if self._code is None:
            self._code = self._hear(timeout)
            self._news.close()
        return self._code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _hear(self, timeout: float | None) -> int:
        self._news.settimeout(timeout)
        number = self._news.recv(64)
        assert number, f"what forks has ended:\n{_server().end()}"
        return int(number)


class Server:
    """The process that forks. Its standard output is a pipe, as that of its forks: Python notes what it writes to."""

    def __init__(self) -> None:
        self.orders, taken = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with taken:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(taken.fileno())],
                cwd=REPOSITORY,
                env={"PATH": os.environ["PATH"], **INTERPRETER},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[taken.fileno()],
                text=True,
            )

    def end(self) -> str:
        """End it, and return what it has printed."""
        self.orders.close()
        return self._process.communicate(timeout=60)[0]


@functools.cache
def _server() -> Server:
    server = Server()
    atexit.register(server.end)
    return server


def import_all() -> None:
    """Import what commands import: all of the package but what runs on hosts."""
    package = importlib.import_module(PACKAGE)
    for module in pkgutil.walk_packages(package.__path__, f"{PACKAGE}."):
        if not module.name.startswith(ON_HOSTS):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


class Forks:
    """The commands that this process has forked: each is known by a descriptor that tells of its end."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._running: dict[int, tuple[int, int]] = {}
        self._polled = select.poll()
        self._polled.register(orders, select.POLLIN)

    def serve(self) -> bool:
        """Fork a command for each order. Return True in each fork, and False here when the orders end."""
        for descriptor in self._ready():
            if descriptor in self._running:
                self._report(descriptor)
                continue
            message, descriptors, _, _ = socket.recv_fds(self._orders, ORDER_BYTES, 3)
            if not message:
                return False
            if self._fork(*descriptors):
                become(**json.loads(message))
                return True
        return False

    def _ready(self) -> Iterator[int]:
        while True:
            yield from (descriptor for descriptor, _ in self._polled.poll())

    def _fork(self, news: int, out: int, err: int) -> bool:
        """Return whether this is the fork; it has the descriptors 0 to 2 alone."""
        pid = os.fork()
        if not pid:
            os.dup2(out, 1)
            os.dup2(err, 2)
            self._orders.close()
            for descriptor in (news, out, err, *self._running, *(other for _, other in self._running.values())):
                os.close(descriptor)
            return True
        os.close(out)
        os.close(err)
        os.write(news, b"%d" % pid)
        ended = os.pidfd_open(pid)
        self._running[ended] = pid, news
        self._polled.register(ended, select.POLLIN)
        return False

    def _report(self, ended: int) -> None:
        pid, news = self._running.pop(ended)
        self._polled.unregister(ended)
        os.close(ended)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(BrokenPipeError):  # nobody waits for it
            os.write(news, b"%d" % os.waitstatus_to_exitcode(status))
        os.close(news)


def become(words: Sequence[str], directory: str, env: Mapping[str, str], umask: int) -> None:
    """Take the place of a process that was started so."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(directory)
    sys.path[0] = directory
    sys.argv[1:] = words
    if umask >= 0:
        os.umask(umask)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # Ctrl-C is for the tests, and orders end with them
    import_all()
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        is_fork = Forks(orders).serve()
    if is_fork:
        importlib.import_module(f"{PACKAGE}.__main__").main()


if __name__ == "__main__":
    main()
