"""What only Linux has: names of Python's standard library, /proc and /sys."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import socket
import sys
import time
from types import ModuleType

ONLY_LINUX: dict[ModuleType, str] = {
    fcntl: """F_ADD_SEALS F_GET_SEALS F_GETLEASE F_GETPIPE_SZ F_GETSIG F_NOTIFY F_OFD_GETLK F_OFD_SETLK F_OFD_SETLKW
        F_SETLEASE F_SETPIPE_SZ F_SETSIG""",
    os: """O_DIRECT O_LARGEFILE O_NOATIME O_PATH copy_file_range eventfd fdatasync getrandom getresgid getresuid
        memfd_create pidfd_open posix_fadvise posix_fallocate sched_getaffinity sched_getparam sched_getscheduler
        sched_setaffinity sched_setparam sched_setscheduler setns setresgid setresuid splice unshare""",
    resource: "RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_RTTIME RLIMIT_SIGPENDING prlimit",
    select: "EPOLLERR EPOLLHUP EPOLLIN EPOLLOUT EPOLLPRI EPOLL_CLOEXEC epoll",
    signal: "SIGCLD SIGPOLL SIGPWR SIGRTMAX SIGRTMIN SIGSTKFLT pidfd_send_signal sigtimedwait sigwaitinfo",
    socket: """AF_ALG AF_CAN AF_NETLINK AF_PACKET AF_VSOCK MSG_CMSG_CLOEXEC MSG_CONFIRM MSG_ERRQUEUE MSG_MORE
        MSG_NOSIGNAL SOCK_CLOEXEC SOCK_NONBLOCK SO_BINDTODEVICE SO_DOMAIN SO_INCOMING_CPU SO_MARK SO_PASSCRED
        SO_PEERCRED SO_PRIORITY SO_PROTOCOL TCP_CONGESTION TCP_CORK TCP_DEFER_ACCEPT TCP_INFO TCP_LINGER2
        TCP_QUICKACK TCP_SYNCNT TCP_USER_TIMEOUT TCP_WINDOW_CLAMP""",
    time: "CLOCK_BOOTTIME CLOCK_TAI",
}
"""By the pages of these modules in Python's documentation. The standard library does without each of them on macOS."""


def take_away() -> None:
    """Remove the names from this process, and hide files below /proc and /sys. There is no way back."""
    for module, names in ONLY_LINUX.items():
        for name in names.split():
            vars(module).pop(name, None)
    sys.addaudithook(_hide)


def _hide(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(("/proc", "/sys/")):
        raise FileNotFoundError(2, "No such file or directory", str(arguments[0]))
