"""Hosts that can't be reached, logged into or worked on."""

from __future__ import annotations

import os
import signal

from tests.lab.product.breaking.stage import Stage, caught_by

AHEAD = "import sys, time; now = time.time; time.time = lambda: now() + 3600; exec(sys.argv.pop(1))"
OLD = "import sys; sys.version = '3.7.3 (a stand-in)'; exec(sys.argv.pop(1))"
USER = "lab:*:64001:64001::/run/lab:/bin/bash"


@caught_by("tcp", "is the host up", exits=3, round="unreachable", at="node2")
def a_cable_is_pulled(stage: Stage) -> None:
    stage.configuration["deploy"]["timeouts"]["connect"] = 1
    stage.host.cut()
    stage.undo.callback(stage.host.join)


@caught_by("tcp", "is sshd running there?", exits=3, round="unreachable", at="node4")
def nothing_listens_on_its_port(stage: Stage) -> None:
    stage.inventory(ansible_port=2299)


@caught_by("ssh", "try: ssh 10.", exits=3, round="refused", at="node2")
def something_else_listens_on_its_port(stage: Stage) -> None:
    stage.configuration["deploy"]["timeouts"]["connect"] = 1
    stage.start("exec python3 -m http.server 2299")
    stage.on("until ss -Hltn | grep -q :2299; do sleep 0.02; done")
    stage.inventory(ansible_port=2299)


@caught_by("ssh", "try: ssh 10.", exits=3, round="silent", at="node2")
def sshd_hangs(stage: Stage) -> None:
    """Stop sshd; the kernel accepts connections for it."""
    stage.configuration["deploy"]["timeouts"]["connect"] = 1
    os.kill(stage.host.state.pid, signal.SIGSTOP)
    stage.undo.callback(os.kill, stage.host.state.pid, signal.SIGCONT)


@caught_by("host-key", "ssh-keygen", exits=3, round="unreachable", at="node3")
def its_key_is_another(stage: Stage) -> None:
    address, other = stage.host.address, stage.lab.hosts[3].address
    lines = stage.lab.known_hosts.read_text().splitlines()
    key = next(line.partition(" ")[2] for line in lines if line.startswith(f"{other} "))
    known_hosts = stage.directory / "known_hosts"
    known_hosts.write_text(
        "".join(f"{line}\n" for line in lines if not line.startswith(f"{address} ")) + f"{address} {key}\n"
    )
    stage.inventory(ansible_ssh_common_args=f"-o UserKnownHostsFile={known_hosts}")


@caught_by("host-key", "compare the fingerprint on the host", exits=3, round="refused", at="node3")
def its_key_is_not_known(stage: Stage) -> None:
    lines = stage.lab.known_hosts.read_text().splitlines(keepends=True)
    known_hosts = stage.directory / "known_hosts"
    known_hosts.write_text("".join(line for line in lines if not line.startswith(f"{stage.host.address} ")))
    stage.inventory(ansible_ssh_common_args=f"-o UserKnownHostsFile={known_hosts}")


@caught_by("login", "ssh-copy-id", exits=3, round="refused", at="node4")
def it_does_not_know_the_operators_key(stage: Stage) -> None:
    stage.on("mv ~/.ssh/authorized_keys ~/.ssh/gone", "mv ~/.ssh/gone ~/.ssh/authorized_keys")


@caught_by("clean-shell", "[[ $- == *i* ]] || return", state="warning", round="interpreters", at="node4")
def a_login_prints_something(stage: Stage) -> None:
    stage.on("echo 'echo Welcome to the cluster' > ~/.bashrc", "rm ~/.bashrc")


@caught_by("clean-shell", "~/.bashrc", round="silent", at="node3")
def a_login_ends_before_our_program_runs(stage: Stage) -> None:
    stage.on("echo 'exit 0' > ~/.bashrc", "rm ~/.bashrc")


@caught_by("python", "install python3 (3.8 or later)", round="silent", at="node4")
def its_python_is_not_there(stage: Stage) -> None:
    stage.inventory(ansible_python_interpreter="/usr/bin/python3.99")


@caught_by("python", "set `python:` for", round="interpreters", at="node2")
def its_python_is_too_old(stage: Stage) -> None:
    use_python(stage, OLD)


@caught_by("python", "docker ps -a --filter name=serving", round="interpreters", at="node3")
def its_container_does_not_run(stage: Stage) -> None:
    """As Docker answers for a container that is not there."""
    docker = stage.host.directory / "sbin/docker"
    docker.write_text("#!/bin/sh\necho 'Error response from daemon: No such container: serving' >&2\nexit 1\n")
    docker.chmod(0o755)
    stage.undo.callback(docker.unlink)
    stage.inventory(container="serving")


@caught_by("writable", "chmod 1777 /dev/shm", round="accounts", at="node2")
def shared_memory_is_read_only(stage: Stage) -> None:
    stage.on("mount -o remount,ro /dev/shm", "mount -o remount,rw /dev/shm")


@caught_by("processes-visible", "remount,hidepid=0", state="warning", round="accounts", at="node3")
def processes_of_others_are_hidden(stage: Stage) -> None:
    log_in_as_another(stage)
    stage.on("mount -o remount,hidepid=2 /proc", "mount -o remount,hidepid=0 /proc")


@caught_by("distinct-hosts", "remove one of the names from", round="names", at="node3")
def it_is_another_name_of_a_machine(stage: Stage) -> None:
    stage.inventory(ansible_host=stage.lab.hosts[1].address)


@caught_by("clock", "timedatectl set-ntp true", state="warning", round="accounts", at="node4")
def its_clock_is_an_hour_ahead(stage: Stage) -> None:
    """All hosts of a lab share the machine's clock: a Python with another one stands in for it."""
    use_python(stage, AHEAD)


@caught_by("resolver", 'RES_OPTIONS: "timeout:1 attempts:1"', state="warning", round="names", at="node4")
def its_name_server_never_answers(stage: Stage) -> None:
    port = "import socket, time; s = socket.socket(2, 2); s.bind(('127.0.0.1', 53)); time.sleep(3600)"
    stage.start(f'python3 -c "{port}"')
    stage.on("until grep -q ':0035 ' /proc/net/udp; do sleep 0.02; done")
    stage.write(stage.host.directory / "resolv.conf", "nameserver 127.0.0.1\n")


def log_in_as_another(stage: Stage, bashrc: str = "") -> None:
    """Log in as a user who is not root; what root has is made visible to them."""
    stage.on(
        f"(cat /etc/passwd; echo '{USER}') > /run/passwd && mount --bind /run/passwd /etc/passwd && chmod 711 /root\n"
        "mkdir -p /run/lab/.ssh && cp ~/.ssh/authorized_keys /run/lab/.ssh/ && chown -R 64001:64001 /run/lab\n"
        f"(echo 'PATH=$PATH:/usr/local/sbin'; echo '{bashrc}') > /run/lab/.bashrc",
        "umount /etc/passwd; chmod 700 /root; rm -r /run/lab /run/passwd",
    )
    stage.inventory(ansible_user="lab")


def use_python(stage: Stage, program: str) -> None:
    """Have a Python that runs this program, which runs the one it is given (`… -c PROGRAM`)."""
    python = stage.host.directory / "sbin/python-stand-in"
    python.write_text(f'#!/bin/sh\nwhile [ "$1" != -c ]; do shift; done; shift\nexec python3 -c "{program}" "$@"\n')
    python.chmod(0o755)
    stage.undo.callback(python.unlink)
    stage.inventory(ansible_python_interpreter="/usr/local/sbin/python-stand-in")
