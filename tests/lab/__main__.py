"""The lab for people: `python -m tests.lab up 3`, `ssh 1 hostname`, `cut 2`, `join 2`, `kill 3`, `rate 1 100`, `down`.

Hosts count from 1. Commands go to the first lab that `up` made; `--slot N` picks another, tests' labs included.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.lab.demolition import reap
from tests.lab.host import Host
from tests.lab.keepers import LabError
from tests.lab.lab import Lab
from tests.lab.permission import obstacle
from tests.lab.slots import known_slots, registry
from tests.lab.state import LabState


def main() -> int:
    options = _parser().parse_args()
    try:
        result: int = options.act(options)
    except LabError as error:
        sys.stderr.write(f"lab: {error}\n")
        return 1
    return result


def up(options: argparse.Namespace) -> int:
    began = time.monotonic()
    lab = Lab(options.hosts, options.gpus, options.mount, owner=options.owner)
    if options.inventory:
        lab.inventory(Path(options.inventory), **dict(word.split("=", 1) for word in options.var))
    _say(f"slot {lab.slot.number}: {_hosts(lab)}; up in {time.monotonic() - began:.1f} s")
    return 0


def down(options: argparse.Namespace) -> int:
    labs = [Lab.attach(options.slot)] if options.slot is not None else [Lab.attach(slot) for slot in _persistent()]
    for lab in labs:
        lab.close()
        _say(f"slot {lab.slot.number}: down, nothing of it remains")
    with registry():
        for slot in reap():
            _say(f"slot {slot.number}: removed what a killed lab had left")
    return 0


def show(options: argparse.Namespace) -> int:
    for slot in known_slots():
        state = LabState.of(slot)
        if state is not None:
            until = "until down" if state.owner is None else f"with process {state.owner}"
            _say(f"slot {slot.number}: {_hosts(Lab.attach(slot.number))}; lives {until}")
    return 0


def possible(options: argparse.Namespace) -> int:
    reason = obstacle()
    _say(reason or "a lab can be made here")
    return 1 if reason else 0


def ssh(options: argparse.Namespace) -> int:
    argv = [*_host(options).ssh_argv(), *options.command]
    os.execvp(argv[0], argv)


def cut(options: argparse.Namespace) -> int:
    _host(options).cut()
    return 0


def join(options: argparse.Namespace) -> int:
    _host(options).join()
    return 0


def kill(options: argparse.Namespace) -> int:
    _host(options).kill()
    return 0


def rate(options: argparse.Namespace) -> int:
    _host(options).rate(options.mbit or None)
    return 0


def gpus(options: argparse.Namespace) -> int:
    _host(options).set_gpus(options.count)
    return 0


def _persistent() -> list[int]:
    return [slot.number for slot in known_slots() if (state := LabState.of(slot)) is not None and state.owner is None]


def _lab(options: argparse.Namespace) -> Lab:
    if options.slot is not None:
        return Lab.attach(options.slot)
    persistent = _persistent()
    if not persistent:
        raise LabError("no lab is up: python -m tests.lab up 3")
    return Lab.attach(persistent[0])


def _host(options: argparse.Namespace) -> Host:
    lab = _lab(options)
    if not 1 <= options.host <= len(lab.hosts):
        raise LabError(f"slot {lab.slot.number} has hosts 1 to {len(lab.hosts)}, not {options.host}")
    index: int = options.host - 1
    return lab.hosts[index]


def _hosts(lab: Lab) -> str:
    return ", ".join(f"{host.name} {host.address}" + ("" if host.alive else " (dead)") for host in lab.hosts)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument("--slot", type=int, metavar="N", help="the lab in this slot")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    made = commands.add_parser("up", help="bring up a lab that stays until `down`")
    made.add_argument("hosts", type=int)
    made.add_argument("--gpus", type=int, default=0, metavar="N", help="what nvidia-smi counts on each host")
    made.add_argument("--mount", action="append", default=[], metavar="DIR", help="visible in every host, read-only")
    made.add_argument("--owner", type=int, metavar="PID", help="end the lab with this process")
    made.add_argument("--inventory", metavar="FILE", help="write an Ansible inventory of the hosts")
    made.add_argument("--var", action="append", default=[], metavar="KEY=VALUE", help="a variable for the inventory")
    made.set_defaults(act=up)
    commands.add_parser("down", help="end every lab that `up` made, or that of --slot").set_defaults(act=down)
    commands.add_parser("list", help="the labs on this machine").set_defaults(act=show)
    commands.add_parser("possible", help="whether a lab can be made here").set_defaults(act=possible)

    for act, text in ((cut, "pull a host's network cable"), (join, "plug it in"), (kill, "power loss of a host")):
        _for_host(commands, act.__name__, text).set_defaults(act=act)
    entered = _for_host(commands, "ssh", "run a command on a host, or a shell")
    entered.add_argument("command", nargs=argparse.REMAINDER)
    entered.set_defaults(act=ssh)
    shaped = _for_host(commands, "rate", "limit a host's link")
    shaped.add_argument("mbit", type=float, help="Mbit/s each way; 0 lifts the limit")
    shaped.set_defaults(act=rate)
    equipped = _for_host(commands, "gpus", "change what a host's nvidia-smi counts")
    equipped.add_argument("count", type=int)
    equipped.set_defaults(act=gpus)
    return parser


def _for_host(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text)
    parser.add_argument("host", type=int, metavar="I")
    return parser


if __name__ == "__main__":
    sys.exit(main())
