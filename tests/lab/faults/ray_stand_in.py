"""A stand-in for the command `ray`: `ray start` with the flags that the product uses.

`ray start --head --node-ip-address=A --port=P --num-gpus=N` and `ray start --address=A:P …` start daemons that are
called gcs_server and raylet, and end when the node is counted.

The daemons do what the product can see of Ray's: they detach into sessions of their own, keep the environment they
were started with, listen, and leave a file in --temp-dir. Each head has a session, which its raylets name. A raylet
stays when its gcs_server is gone, unless STAND_IN_RAYLET in its environment is `leaves`: then it ends when that has not
counted it for 3 s, as Ray's own does after a minute.
While there is a file /dev/shm/hold-raylet, a raylet does not end of SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

HOLD = Path("/dev/shm/hold-raylet")
START_SECONDS = 20.0
SESSION = time.strftime(f"session_%Y-%m-%d_%H-%M-%S_{os.getpid()}")
"""Of the GCS that runs here."""
LEAVE_SECONDS = 3.0


def main() -> int:
    words = sys.argv[1:]
    flags = {name.lstrip("-"): value for name, _, value in (word.partition("=") for word in words)}
    if words[:1] == ["gcs_server"]:
        return serve(flags["node-ip-address"], int(flags["port"]))
    if words[:1] == ["raylet"]:
        return join(flags["address"], flags["node-ip-address"], float(flags["num-gpus"]), Path(flags["temp-dir"]))
    address = flags.get("address") or f"{flags['node-ip-address']}:{flags['port']}"
    if "head" in flags:
        detach("gcs_server", words)
    deadline = time.monotonic() + START_SECONDS
    while not (session := ask(address, "session")) and time.monotonic() < deadline:
        time.sleep(0.05)
    detach("raylet", [f"--session-name={session}", f"--address={address}", *words])
    while time.monotonic() < deadline:
        if any(node["node"] == flags["node-ip-address"] for node in ask(address)):
            return 0
        time.sleep(0.05)
    sys.stderr.write(f"ERROR: Failed to connect to GCS at address {address} within {START_SECONDS:g} seconds\n")
    return 1


def detach(name: str, words: list[str]) -> None:
    """Start a daemon that goes by that name, as a process of nobody's."""
    if os.fork():
        os.wait()
        return
    os.setsid()
    if not os.fork():
        os.execve(sys.executable, [name, __file__, name, *words], {**os.environ, "PYTHONHOME": sys.base_prefix})
    os._exit(0)


def serve(host: str, port: int) -> int:
    """Count the nodes that are connected."""
    nodes: dict[int, dict[str, Any]] = {}
    listener = socket.create_server((host, port))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=talk, args=(connection, nodes), daemon=True).start()


def talk(connection: socket.socket, nodes: dict[int, dict[str, Any]]) -> None:
    with connection, connection.makefile() as heard:
        for line in heard:
            message = json.loads(line)
            if "node" in message:
                for descriptor in [at for at, node in nodes.items() if node["node"] == message["node"]]:
                    nodes.pop(descriptor)  # its host has lost power since
                nodes[connection.fileno()] = message
            elif message["ask"] == "session":
                connection.sendall(json.dumps(SESSION).encode() + b"\n")
            else:
                connection.sendall(json.dumps(list(nodes.values())).encode() + b"\n")
        nodes.pop(connection.fileno(), None)


def join(address: str, node: str, gpus: float, directory: Path) -> int:
    """Be connected until SIGTERM."""
    signal.signal(signal.SIGTERM, end_when_let)
    directory.mkdir(exist_ok=True)
    directory.chmod(0o777)  # as Ray 2.60 does
    (directory / "session_stand_in").write_text("a socket would be here\n")
    connection = connect(address)
    connection.sendall(json.dumps({"node": node, "gpus": gpus}).encode() + b"\n")
    if os.environ.get("STAND_IN_RAYLET") == "leaves":
        leave_when_not_counted(address, node)
    while True:
        signal.pause()


def leave_when_not_counted(address: str, node: str) -> None:
    counted = time.monotonic()
    while time.monotonic() - counted < LEAVE_SECONDS:
        time.sleep(0.5)
        if any(listed["node"] == node for listed in ask(address)):
            counted = time.monotonic()
    sys.exit(1)


def end_when_let(_number: int, _frame: object) -> None:
    while HOLD.exists():
        time.sleep(0.02)
    os._exit(0)


def ask(address: str, wish: Any = True) -> Any:
    try:
        with socket.create_connection(place(address), timeout=2) as gcs, gcs.makefile() as answer:
            gcs.sendall(json.dumps({"ask": wish}).encode() + b"\n")
            return json.loads(answer.readline())
    except (OSError, ValueError):
        return []


def connect(address: str) -> socket.socket:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            connection = socket.create_connection(place(address), timeout=2)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            connection.settimeout(None)
            return connection


def place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    sys.exit(main())
