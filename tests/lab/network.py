"""Bridge and cables of a lab, through iproute2."""

from __future__ import annotations

import json
import subprocess

from tests.lab.slots import Slot


def make_bridge(slot: Slot) -> None:
    """Return the switch that all hosts of a lab are plugged into; the machine itself has the gateway's address on it.

    Its card is ours, not the lowest of those plugged in: with that one's host it would change, and the answers of the
    others would be lost for ten seconds, until they ask for the gateway again.
    """
    _ip(
        f"link add name {slot.bridge} address {card(slot, 0)} type bridge",
        f"addr add {slot.gateway}/24 dev {slot.bridge}",
        f"link set {slot.bridge} up",
    )


def plug_in(slot: Slot, index: int, pid: int) -> None:
    """Lay a cable from the bridge to `eth0` in the network namespace of process `pid`.

    A host that boots again has the same network card: its neighbours know its address for half a minute.
    """
    cable = slot.cable(index)
    subprocess.run(["ip", "link", "del", cable], capture_output=True, check=False)  # that of an earlier boot
    _ip(
        f"link add {cable} type veth peer name eth0 address {card(slot, index + 1)} netns {pid}",
        f"link set {cable} master {slot.bridge} up",
    )


def card(slot: Slot, number: int) -> str:
    """Return the address of a network card: the machine's own is number 0, the hosts' follow."""
    return f"02:77:00:{slot.number:02x}:00:{number:02x}"


def set_cable(cable: str, *, up: bool) -> None:
    _ip(f"link set {cable} {'up' if up else 'down'}")


def shape(cable: str, pid: int, mbit: float | None) -> None:
    """Limit the link to `mbit` Mbit/s in each direction; None lifts the limit. `pid` is a process of the host.

    Above 1 Mbit/s the first 256 KiB pass at once; below it one packet does.
    """
    burst, latency = ("256k", "50ms") if mbit is None or mbit > 1 else ("2k", "4s")
    for where, device in (([], cable), (["nsenter", f"--net=/proc/{pid}/ns/net"], "eth0")):
        subprocess.run([*where, "tc", "qdisc", "del", "dev", device, "root"], capture_output=True, check=False)
        if mbit is not None:
            limit = ["tbf", "rate", f"{mbit}mbit", "burst", burst, "latency", latency]
            _run([*where, "tc", "qdisc", "add", "dev", device, "root", *limit])


def links(slot: Slot) -> list[str]:
    """Names of the slot's bridge and cables that exist on the machine."""
    shown = subprocess.run(["ip", "-json", "link"], check=True, capture_output=True, text=True).stdout
    return [name for link in json.loads(shown) if slot.owns(name := link["ifname"])]


def remove_links(slot: Slot) -> None:
    """Take down every link of the slot; a veth that vanishes meanwhile with its namespace is no error."""
    for name in sorted(links(slot), reverse=True):
        subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)


def _ip(*commands: str) -> None:
    _run(["ip", "-batch", "-"], "\n".join(commands) + "\n")


def _run(argv: list[str], stdin: str | None = None) -> None:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}\n{stdin or ''}")
