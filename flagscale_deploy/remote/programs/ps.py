"""List what runs on this host: our user's deployments, other users' as far as may be seen, and who holds the GPUs."""

from __future__ import annotations

import json
import os
import pwd
import time
from itertools import accumulate, count, islice
from typing import TYPE_CHECKING, Callable, Dict, Iterable, Iterator, List, Tuple, cast

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import history, leftovers, record, state
from flagscale_deploy.remote.engine import ranks
from flagscale_deploy.remote.programs import inspect
from flagscale_deploy.remote.system import gpus, proc
from flagscale_deploy.remote.system.background import Background

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.ps import OthersDeployment, OwnDeployment, PsArguments, PsReply
    from flagscale_deploy.remote.messages.record import Record, RecordedServer
    from flagscale_deploy.remote.messages.status import InspectReply

send: Callable[[PsReply], None] = wire.send

MOST = 100
"""As many deployments are listed: any user can give processes these names."""
MOST_MODELS, LONGEST = 20, 300
MOST_BYTES = 1 << 20
"""Of the message, for what other users' records say: a character may take twelve."""
READ_SECONDS = 3.0
"""How long records of other users are read."""


def main(args: PsArguments) -> None:
    """Send what runs here."""
    devices = Background(gpus.ask) if args["gpus"] else None
    everyone = proc.scan()
    names = own_names(args["host"], everyone)
    looks = [Background(_look, name, host, everyone) for name, host in names[:MOST]]
    seen = gpus.see(devices.result() if devices else None, everyone)
    reply: PsReply = {
        "user": gpus.user_of(os.getuid()),
        "deployments": [_own(name, host, look.result()) for (name, host), look in zip(names, looks)],
        "left_out": max(0, len(names) - MOST),
        "others": of_others(everyone),
        "gpus": seen.gpus,
        "gpu_error": seen.gpu_error,
    }
    send(reply)
    os._exit(0)  # at once: a server that does not answer may still be waited for


def own_names(host: str, everyone: List[proc.Process]) -> List[Tuple[str, str]]:
    """Return name and host's name of each deployment of our user here: recorded, or with processes that bear it."""
    recorded = [(one.get("deployment", ""), one.get("host", "")) for one in record.of_this_machine(host)]
    names = {name for name, _ in recorded}
    marked = {marker.rpartition("/")[0] for marker in leftovers.runs(everyone)}
    return sorted(filter(all, {*recorded, *((name, host) for name in marked - names)}))


def of_others(everyone: List[proc.Process]) -> List[OthersDeployment]:
    """Return what other users serve: the marked processes of each deployment, and engines and Ray without a marker.

    Engines rename themselves and lose their environment: they belong to what their session's other processes say.
    """
    foreign = [process for process in everyone if process.uid != os.getuid()]
    sessions = {(process.uid, process.sid): process.marker for process in foreign if process.marker}
    groups: Dict[Tuple[int, str], List[proc.Process]] = {}
    for process in foreign:
        name = (process.marker or sessions.get((process.uid, process.sid), "")).rpartition("/")[0]
        if name or ranks.part(process) is not None or is_server(process.command):
            groups.setdefault((process.uid, name), []).append(process)
    end = time.monotonic() + READ_SECONDS
    others = [
        _of_other(uid, name, groups[uid, name], _servers(uid, name, end)) for uid, name in _in_turn(groups)[:MOST]
    ]
    sizes = accumulate(len(json.dumps(other)) for other in others)
    return [other if size <= MOST_BYTES else _without_texts(other) for other, size in zip(others, sizes)]


def _in_turn(names: Iterable[Tuple[int, str]]) -> List[Tuple[int, str]]:
    """Return deployments in the order of their users, one of each in turn: none of them hides all of another's."""
    places: Dict[int, Iterator[int]] = {}
    order = sorted((next(places.setdefault(uid, count())), uid, name) for uid, name in sorted(names))
    return [(uid, name) for _, uid, name in order]


def _without_texts(other: OthersDeployment) -> OthersDeployment:
    return cast("OthersDeployment", {**other, "models": [], "endpoint": ""})


def is_server(command: str) -> bool:
    """Return whether a command line is `vllm serve …`, with paths and by Python or not."""
    words = [word.rpartition("/")[2] for word in command.split(None, 3)[:3]]
    return (words[1:] if words[:1] and words[0].startswith("python") else words)[:2] == ["vllm", "serve"]


def _look(deployment: str, host: str, everyone: List[proc.Process]) -> InspectReply:
    return inspect.look({"deployment": deployment, "host": host, "ask": True}, everyone)


def _own(deployment: str, host: str, seen: InspectReply) -> OwnDeployment:
    event = history.last(state.directory(deployment, host))
    return {"deployment": deployment, "host": host, "seen": seen, "last_event": event}


def _of_other(
    uid: int, deployment: str, members: List[proc.Process], servers: List[RecordedServer]
) -> OthersDeployment:
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    oldest = min(process.start_ticks for process in members) / os.sysconf("SC_CLK_TCK")
    return {
        "user": gpus.user_of(uid),
        "deployment": deployment[:LONGEST],
        "processes": len(members),
        "since": booted + oldest,
        "models": sorted({*_texts(servers, "served_name")})[:MOST_MODELS],
        "endpoint": next(_texts(servers, "endpoint"), ""),
    }


def _texts(servers: List[RecordedServer], key: str) -> Iterator[str]:
    """Yield a key's value of each server where it is text: another user may have written anything."""
    values = (cast("Dict[str, object]", server).get(key) for server in servers)
    return (value[:LONGEST] for value in values if isinstance(value, str))


def _servers(uid: int, deployment: str, end: float) -> List[RecordedServer]:
    """Return what another user's record lists, the entrance first, if it can be read by then: their disk may hang."""
    left = end - time.monotonic()
    if not deployment or left <= 0:
        return []
    try:
        content = Background(_readable_record, uid, deployment).result(left)
        return [*reversed(content.get("routers", [])), *content.get("instances", [])]
    except TimeoutError:
        return []


def _readable_record(uid: int, deployment: str) -> Record:
    """Return another user's record of this boot, where permissions allow that; else an empty one.

    Its file has to be that user's own: a link in their home directory could lead to anybody's.
    """
    try:
        folder = state.root_of(pwd.getpwuid(uid).pw_dir) / state.file_name(deployment)
        with os.scandir(str(folder)) as entries:
            names = sorted(entry.name for entry in islice(entries, MOST))
        for name in names:
            path = folder / name / "record.json"
            if path.lstat().st_uid == uid:
                content = record.load(path)
                if content.get("boot_id") == record.boot_id() and content.get("machine") == os.uname().nodename:
                    return content
    except (OSError, KeyError, ValueError):
        pass
    return cast("Record", {})
