"""Look at a program of the user's own: whether it has joined Ray, where it answers, how it ended."""

from __future__ import annotations

import glob
import os
import re
import threading
import time
from typing import TYPE_CHECKING, Iterable, Optional, Sequence, Tuple

from flagscale_deploy.remote.deployment import ray_temp, state
from flagscale_deploy.remote.deployment.port_guard import ForeignListenerError, NotThisHostError
from flagscale_deploy.remote.engine import openai
from flagscale_deploy.remote.engine.client import Client
from flagscale_deploy.remote.system import files, proc

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.run import WatchArguments

POLL_SECONDS = 0.1
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
STAY_SECONDS = 5.0
"""How long a program without a port has to live after it joined Ray: most mistakes of a start show by then."""

_DRIVER = re.compile(r"python-core-driver-[0-9a-f]+_(\d+)\.log")
"""The log that Ray opens for every driver that connects (measured with Ray 2.60)."""


class ProgramPoll(threading.Thread):
    """Waits until a program serves, beside the loop that reads its log.

    With addresses, it serves when one of them is reached (`answers`). Without, when it has joined Ray and has lived for
    STAY_SECONDS since. `answered` is then the address, or "". `foreign` tells who else has its port.
    """

    def __init__(self, args: WatchArguments, addresses: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self.answered = None  # type: Optional[str]
        self.why = "it was not asked yet"
        self.foreign = ""
        self._args, self._addresses = args, addresses
        self._joined = None  # type: Optional[float]
        self.start()

    def run(self) -> None:
        """Look until it serves."""
        client = openai.client(self._args["deployment"], self._args["host"], program=True)
        while self.answered is None:
            if self._addresses:
                try:
                    self.answered, self.why = answers(client, self._addresses, elsewhere=True)
                except ForeignListenerError as error:
                    self.foreign = str(error)
            else:
                self._look()
            time.sleep(POLL_SECONDS)

    def _look(self) -> None:
        if self._joined is None and joined(self._args["deployment"], self._args["host"], self._args["pid"]):
            self._joined = time.monotonic()
        self.why = "it has not joined Ray; set deploy.port if it serves without Ray"
        if self._joined is not None and time.monotonic() - self._joined >= STAY_SECONDS:
            self.answered = ""


def answers(client: Client, addresses: Iterable[str], *, elsewhere: bool = False) -> Tuple[Optional[str], str]:
    """Return the first address where something serves, and why the others don't count.

    Something serves where a connection is accepted, unless it speaks HTTP and answers GET /health with a 5xx status. On
    this host it is verified to be of the deployment. `elsewhere`: addresses of other hosts count too; what serves there
    has to be verified there (`serving`).

    Raises ForeignListenerError if it serves nowhere, and somebody else has the port on this host.
    """
    why, foreign = "", None
    for address in addresses:
        try:
            try:
                client.reach(address, CONNECT_SECONDS)
            except NotThisHostError:
                if not elsewhere:
                    continue
            if (status := _health(client, address)) < 500:
                return address, ""
            why = "%s/health answers %d" % (address, status)
        except ForeignListenerError as error:
            foreign = foreign or error
        except OSError as error:
            why = why or "%s: %s" % (address, error)
    if foreign is not None:
        raise foreign
    return None, why


def _health(client: Client, address: str) -> int:
    """Return the status of GET /health, 0 from what does not speak HTTP."""
    try:
        return client.request(address + "/health", timeout=ANSWER_SECONDS)[0]
    except ForeignListenerError:
        raise
    except (OSError, ValueError):
        return 0


def joined(deployment: str, host: str, leader: int) -> bool:
    """Return whether a process of the session that `leader` leads has connected to the deployment's Ray as a driver."""
    pids = {process.pid for process in proc.scan() if process.sid == leader}
    for directory in ray_temp.directories(deployment, host, {}):
        for session in ray_temp.sessions(directory):
            for path in glob.glob(os.path.join(session, "logs", "python-core-driver-*.log")):
                driver = _DRIVER.fullmatch(os.path.basename(path))
                if driver and int(driver.group(1)) in pids:
                    return True
    return False


def exit_status(deployment: str, host: str) -> Optional[int]:
    """Return its exit status as its script noted it; None where it runs, or was killed with its script."""
    try:
        return int(files.read_whole(str(state.directory(deployment, host) / "app" / "exit"), 16))
    except (OSError, ValueError):
        return None
