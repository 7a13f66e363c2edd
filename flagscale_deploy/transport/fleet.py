"""Act on all hosts at once: one connection a host, work on threads, every host's result kept."""

from __future__ import annotations

import errno
import resource
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from pathlib import PurePath
from types import TracebackType
from typing import Any, Protocol, TypeVar

from flagscale_deploy.errors import (
    ConnectError,
    DeployError,
    HostError,
    InterruptedByUser,
    RemoteError,
    UnforeseenError,
)
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.messages.program import Arguments, HostProgram, Order, Reply
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.support.interrupts import Interrupt, held_back
from flagscale_deploy.transport.base import POLL_SECONDS, Connection, Interruptible
from flagscale_deploy.transport.remote_program import call
from flagscale_deploy.transport.replies import REPORT, brief

T = TypeVar("T")
DESCRIPTORS, SPARE_DESCRIPTORS = 4, 256
"""Open files for each host (its connection, and the two ends by which a command's output is waited for), and beside."""


MALFORMED = (LookupError, TypeError, AttributeError)
"""What reading a reply raises that is not as `remote/messages/` has it."""


MORE_FILES = "raise its limit of open files (`ulimit -n`), or act on fewer hosts at once (--limit)"


MORE_THREADS = (
    "raise its limit of processes and threads (`ulimit -u`), or act on fewer hosts at once (--limit, --forks)"
)


class _Pool(ThreadPoolExecutor):
    """Threads of which there may be fewer than asked for, where the system gives no more: one does all in turn.

    `together`: then DeployError is raised.
    """

    def __init__(self, threads: int, *, together: bool) -> None:
        super().__init__(threads, thread_name_prefix="fleet")
        self._together = together

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError as error:
            if self._together or not self._threads:
                raise DeployError(f"this machine starts no more threads: {MORE_THREADS}") from error


class GivenUpError(HostError):
    """Work that was ended because another host failed."""


def no_guard() -> None:
    """Allow every action: the default of `Fleet.guard`, where no lock is held."""


class Connect(Protocol):
    """Makes a (still closed) connection to a host; `timeout` in seconds."""

    def __call__(self, host: Host, timeout: float) -> Connection:
        """Return the connection."""


def connect(host: Host, timeout: float) -> Connection:
    """Return a connection of the kind that the inventory asks for."""
    if host.connection == "local":
        from flagscale_deploy.transport.local import LocalConnection

        return LocalConnection(host)
    from flagscale_deploy.transport.ssh import SshConnection

    return SshConnection(host, timeout)


class Fleet:
    """Connections to hosts, opened on first use and closed together at the end of the `with` block.

    A host that could not be reached is not tried again: every later act on it gets the same error. To continue after a
    lost connection, call `fresh_connection`.
    """

    def __init__(
        self, hosts: Iterable[Host], *, forks: int = 64, connect_timeout: float = 15.0, connect: Connect = connect
    ) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.cancelled = threading.Event()
        self.guard: Callable[[], None] = no_guard
        """Raises what forbids further acts on the hosts: a lock that was lost. Called before and after each of them."""
        _allow_descriptors(SPARE_DESCRIPTORS + DESCRIPTORS * len(self.hosts))
        self._forks = forks
        self._connections = {name: connect(host, connect_timeout) for name, host in self.hosts.items()}
        for connection in self._connections.values():
            if isinstance(connection, Interruptible):
                connection.cancelled = self.cancelled
        self._opening = {name: threading.Lock() for name in self.hosts}
        self._logins = threading.BoundedSemaphore(forks)
        self._opened: set[str] = set()
        self._failed: dict[str, HostError] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()

    def connection(self, host: str) -> Connection:
        """Return the open connection to a host. Raises ConnectError, and what the guard raises."""
        self.guard()
        self._host(host)
        with self._opening[host]:
            if host in self._failed:
                raise self._failed[host]
            try:
                self._open(host)
            except HostError as error:
                self._failed[host] = error
                raise
            return self._connections[host]

    def _host(self, name: str) -> Host:
        """Return a host; a record may name any. Raises ConnectError."""
        if name in self.hosts:
            return self.hosts[name]
        raise ConnectError(name, "it is not among this command's hosts", "add it to the inventory or to --limit")

    def _open(self, host: str) -> None:
        """Open a connection; at most `forks` log in at a time: each key exchange takes CPU time here."""
        if host in self._opened:
            self._connections[host].open()
            return
        with self._logins:
            self._connections[host].open()
        self._opened.add(host)

    def fresh_connection(self, host: str) -> Connection:
        """Return a new connection to a host in place of one that was lost; commands that run on the old one end.

        Raises ConnectError, after which it may be called again.
        """
        with self._opening[host]:
            self._failed.pop(host, None)
            self._connections[host].close()
            self._connections[host].open()
            return self._connections[host]

    def map(
        self, work: Callable[[Host], T], hosts: Iterable[str] | None = None, *, fail_fast: bool = False
    ) -> dict[str, T | HostError]:
        """Do `work` for every host (or those named), at most `forks` at a time; return their results by name.

        A HostError becomes that host's result, and so does any exception that is none of ours, and a name of none of
        our hosts. Other errors of ours, and the caller's interruption, cancel the others and are raised at the end.
        `fail_fast`: so does a HostError, and the results of the others are GivenUpErrors.
        """
        names = self.hosts if hosts is None else hosts
        return self.gather({at: partial(lambda name: work(self._host(name)), at) for at in names}, fail_fast=fail_fast)

    def gather(
        self, tasks: Mapping[str, Callable[[], T]], *, fail_fast: bool = False, together: bool = False
    ) -> dict[str, T | HostError]:
        """Do tasks that have a name, as `map` does; `together`: all at the same time, because they last."""
        try:
            return self._gather(tasks, fail_fast, together)
        finally:
            self.cancelled.clear()  # what comes next, such as taking down what was started, is not cancelled
            self.guard()

    def _gather(
        self, tasks: Mapping[str, Callable[[], T]], fail_fast: bool, together: bool
    ) -> dict[str, T | HostError]:
        """Return the results when all threads have ended, also after an interrupt: the caller then takes back."""
        threads = max(1, len(tasks) if together else min(self._forks, len(tasks)))
        with held_back() as interrupt, _Pool(threads, together=together) as pool:
            futures: dict[str, Future[T | HostError]] = {}
            try:
                for name, task in tasks.items():
                    futures[name] = pool.submit(self._kept, name, task, fail_fast)
                _wait(futures.values(), interrupt)
                return {name: future.result() for name, future in futures.items()}
            except BaseException:
                self.cancelled.set()
                for future in futures.values():
                    future.cancel()
                raise

    def wait_for(self, event: threading.Event, deadline: Deadline | None = None) -> None:
        """Wait until an event is set, or for some time. Raises InterruptedByUser where all is cancelled."""
        while not event.wait(POLL_SECONDS) and not self.cancelled.is_set():
            if deadline is not None and deadline.expired:
                return
        if self.cancelled.is_set():
            raise InterruptedByUser("interrupted")

    def call(
        self,
        program: HostProgram[Arguments, Reply, Order],
        args: Callable[[Host], Arguments],
        *,
        timeout: float,
        hosts: Iterable[str] | None = None,
    ) -> dict[str, Reply | HostError]:
        """Run a host program on every host and return each one's last message, or error."""

        def work(host: Host) -> Reply:
            return call(self.connection(host.name), program, args(host), timeout=timeout, cancelled=self.cancelled)

        return self.map(work, hosts)

    def _kept(self, name: str, task: Callable[[], T], fail_fast: bool) -> T | HostError:
        error: HostError
        try:
            if self.cancelled.is_set():  # it waited for a free thread while another host failed
                raise InterruptedByUser("interrupted")
            return task()
        except HostError as failed:
            error = failed
        except InterruptedByUser:
            if not fail_fast:
                raise
            return GivenUpError(name, "stopped, because another host failed")
        except (DeployError, BrokenPipeError):
            raise
        except Exception as wrong:  # noqa: BLE001 (of one host: it must not cost the others)
            error = _error_of(name, wrong)
        if fail_fast:
            self.cancelled.set()
        return error

    def close(self) -> None:
        """Close every connection. One that cannot be closed costs neither the others nor the results."""
        for connection in self._connections.values():
            with suppress(Exception):
                connection.close()


def _error_of(name: str, wrong: Exception) -> HostError:
    """Return the error of a host for an exception that has no words of its own."""
    if isinstance(wrong, OSError) and wrong.errno in (errno.EMFILE, errno.ENFILE):
        return ConnectError(name, f"no connection: {wrong.strerror} on this machine", MORE_FILES)
    if isinstance(wrong, MALFORMED):
        return RemoteError(name, f"malformed reply from the host program ({_describe(wrong)})", REPORT)
    if isinstance(wrong, ValueError):  # what a value in a command line can still be wrong about
        return RemoteError(name, brief(str(wrong)))
    unforeseen = UnforeseenError(name, f"internal error: {_describe(wrong)}", "please report it")
    unforeseen.__cause__ = wrong
    return unforeseen


def _describe(wrong: Exception) -> str:
    """Return an exception in words, with where it was raised."""
    frame = traceback.extract_tb(wrong.__traceback__)[-1]
    return f"{type(wrong).__name__}: {brief(str(wrong))}, {PurePath(frame.filename).name}:{frame.lineno}"


def _allow_descriptors(wanted: int) -> None:
    """Raise our own limit of open files as far as it may go: 1024, what most logins get, is 250 hosts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def failures(results: Mapping[str, T | HostError]) -> dict[str, HostError]:
    """Return the hosts that failed, with their errors."""
    return {name: result for name, result in results.items() if isinstance(result, HostError)}


def answers(results: Mapping[str, T | HostError]) -> dict[str, T]:
    """Return the hosts that did not fail, with their results."""
    return {name: result for name, result in results.items() if not isinstance(result, HostError)}


def _wait(futures: Iterable[Future[Any]], interrupt: Interrupt) -> None:
    """Wait in small steps. Raises what one of them raised, and KeyboardInterrupt."""
    waiting = set(futures)
    while waiting:
        if interrupt.came:
            raise KeyboardInterrupt
        done, waiting = wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
