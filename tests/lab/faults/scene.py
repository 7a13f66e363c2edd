"""A deployment over two lab hosts, somebody who deploys it, and what the tests see of it with eyes of their own."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.lab import Host, Lab
from tests.lab.leftovers import Leftover, Process, inspect
from tests.lab.product.operator import Operator, Running, eventually
from tests.lab.product.stand_in import given

NAME, PORT = "matrix", 7900
TIMEOUTS = {"connect": 5, "probe": 20, "ray": 45, "ready": 45, "stop": 6}
OTHER_USERS = "sleep 86401"
STATE = f"$HOME/.flagscale-deploy/{NAME}"


def pause(seconds: float) -> None:
    """Let time pass, where time itself is what happens."""
    threading.Event().wait(seconds)


def configuration(path: Path, deploy: Mapping[str, object], **envs: str) -> Path:
    """Write one model over both hosts; its engine has a core of its own."""
    content = {
        "experiment": {
            "exp_name": NAME,
            "envs": {
                "STAND_IN": "core",
                "STAND_IN_ERROR": "EngineDeadError: EngineCore encountered an issue.",
                **envs,
            },
        },
        "model_args": {"model0": {"model-tag": "lab/tiny", "served-model-name": "tiny", "port": PORT,
                                  "tensor-parallel-size": 2}},
        "deploy": {"timeouts": TIMEOUTS, **deploy},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@dataclass
class Scene:
    """A cell's world. `at` is the index of the host that the fault hits: the one that the stage waits on."""

    lab: Lab
    desk: Operator
    config: Path
    at: int = 0
    words: list[str] = field(default_factory=list)
    """More of the command line, for every `run`."""
    command: Running | None = None
    """The command that is in the middle of something; None where none is."""
    before: list[Process] = field(default_factory=list)
    """What ran when the fault struck."""
    kept: dict[str, Any] = field(default_factory=dict)
    """What a fault has to remember until it is undone."""
    group: bool = False
    """Whether the deployment is a group of ranks without Ray: then each host has an engine."""

    @property
    def host(self) -> Host:
        return self.lab.hosts[self.at]

    @property
    def running(self) -> Running:
        assert self.command is not None
        return self.command

    def start(self, command: str, *words: str) -> Running:
        """Type a command about the deployment."""
        more = self.words if command == "run" else []
        self.command = self.desk.start(command, "-c", str(self.config), "-v", *words, *more)
        return self.command

    def hold(self, host: Host, what: str) -> None:
        """Have the stand-ins of a host wait; see `ray_stand_in.py` and `vllm_stand_in.py`."""
        host.run(["touch", f"/dev/shm/hold-{what}"])

    def release(self, host: Host, what: str) -> None:
        if host.alive:
            host.run(["rm", "-f", f"/dev/shm/hold-{what}"])

    def processes(self, host: Host) -> list[Process]:
        """Return the deployment's processes on a host; none on one that is off."""
        return [process for process in self.everywhere() if process.host == host.name]

    def everywhere(self) -> list[Process]:
        """Return the deployment's processes on all hosts, without those of another user with a deployment of that name.

        A host that has no Python has none of them either.
        """
        looked = [host for host in self.lab.hosts if host.alive and not ("python" in self.kept and host is self.host)]
        left_over = [process for host in looked for process in inspect(host, NAME).processes]
        return [item for item in left_over if not item.command.startswith(OTHER_USERS)]

    def leftovers(self) -> list[Leftover]:
        """Return what there is of the deployment, also of what ran when the fault struck."""
        left_over = [leftover for leftover in self.lab.leftovers(NAME, self.before) if OTHER_USERS not in leftover.what]
        return [item for item in left_over if not item.what.endswith("/.flagscale-deploy") or not self._is_mount(item)]

    def daemons(self, host: Host, name: str) -> list[int]:
        """Pids of the deployment's daemons of this name: of the stand-in, or of Ray itself."""
        return [
            process.pid for process in self.processes(host) if process.command.split(" ")[0].rpartition("/")[2] == name
        ]

    def _is_mount(self, left: Leftover) -> bool:
        """Return whether it is an empty place that a fault has mounted a disk on."""
        host = next(host for host in self.lab.hosts if host.name == left.host)
        return host.run(["mountpoint", "-q", left.what], check=False).returncode == 0

    @property
    def engine_host(self) -> Host:
        """Return the first host, or in a group the one that is hit."""
        return self.host if self.group else self.lab.hosts[0]

    def engine(self) -> dict[str, Any]:
        """Return what the engine on that host wrote down of itself; a follower has no port."""
        return given(self.engine_host, PORT if self.engine_host.index == 0 else 0)

    def answers(self) -> bool:
        """Whether the engine gives a token, asked on its own host."""
        host = self.lab.hosts[0]
        body = json.dumps({"model": "tiny", "prompt": "hi", "max_tokens": 1})
        url = f"http://127.0.0.1:{PORT}/v1/completions"
        asked = ["curl", "-sf", "-m", "10", "-H", "Content-Type: application/json", "-d", body, url]
        return host.alive and host.run(asked, check=False).returncode == 0

    def record(self, host: Host, change: str) -> None:
        """Change a host's record, if it has one, with this Python about `known`."""
        script = (
            "import fcntl, json, os, sys\n"
            f"place = os.path.expandvars('{STATE}/{host.name}/')\n"
            "if not os.path.exists(place + 'record.json'): sys.exit()\n"
            "lock = open(place + 'record.lock', 'w'); fcntl.flock(lock, fcntl.LOCK_EX)\n"
            "known = json.load(open(place + 'record.json'))\n"
            f"{change}\n"
            "content = json.dumps(known)\n"
            "with open(place + 'record.json', 'r+') as file:\n"
            "    file.write(content); file.truncate()\n"
        )
        host.run(["python3", "-c", script])

    def forget(self) -> None:
        """Take away whatever a failed cell left, so that the next one has a clean start."""
        for running in self.desk.started:
            running.abandon()
        for host in self.lab.hosts:
            host.run("rm -rf /root/.flagscale-deploy /tmp/fsd-* /dev/shm/hold-* /dev/shm/vllm-stand-in", check=False)
            eventually(partial(self._none_is_killed, host), within=20.0)

    def _none_is_killed(self, host: Host) -> bool:
        """Kill the deployment's processes; return whether there were none. One that is started just now comes later."""
        pids = [str(process.pid) for process in self.processes(host)]
        if pids:
            host.run(["kill", "-9", *pids], check=False)
        return not pids


@dataclass
class Innocents:
    """Processes that are nobody's business, on every host. They look like ours, and are not."""

    lab: Lab
    _started: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    LOOKS = (
        "exec -a 'vllm serve lab/tiny {name}' sleep 86400",
        "exec -a 'raylet --node-ip-address' sleep 86400",
        "exec -a VLLM::EngineCore sleep 86400",
        "exec env FLAGSCALE_DEPLOY_RUN={name}-2/r1 sleep 86400",
        "exec setpriv --reuid 65534 env FLAGSCALE_DEPLOY_RUN={name}/r1 " + OTHER_USERS,
    )

    def start(self, index: int) -> None:
        """Start them on a host that has booted."""
        host = self.lab.hosts[index]
        pids = [in_background(host, look.format(name=NAME)) for look in self.LOOKS]
        self._started[index] = [(pid, ticks(host, pid)) for pid in pids]

    def add(self, index: int, pid: int) -> None:
        self._started[index].append((pid, ticks(self.lab.hosts[index], pid)))

    def of(self, index: int) -> Sequence[tuple[int, int]]:
        """Pid and start time of each."""
        return self._started[index]

    def harmed(self) -> list[str]:
        """Those that don't run any more on hosts that do."""
        return [
            f"{host.name}: pid {pid}"
            for index, host in enumerate(self.lab.hosts)
            if host.alive
            for pid, start in self._started[index]
            if ticks(host, pid) != start
        ]


def in_background(host: Host, command: str) -> int:
    """Start a program in a session of its own, as another login would; its pid."""
    shown = shlex.quote(command)
    pid = int(host.run(f"setsid bash -c {shown} </dev/null >/dev/null 2>&1 & echo $!").stdout)
    assert eventually(lambda: not host.run(["cat", f"/proc/{pid}/cmdline"]).stdout.startswith(("bash", "setsid")))
    return pid


def ticks(host: Host, pid: int) -> int:
    """When a process was started, in clock ticks since boot; 0 if there is none."""
    content = host.run(["cat", f"/proc/{pid}/stat"], check=False).stdout
    fields = content.rpartition(")")[2].split()
    return int(fields[19]) if fields and fields[0] != "Z" else 0
