"""Tell where the ranks of a group are by now: its driver's supervisor may have moved some (`deploy.restart.spare`)."""

from __future__ import annotations

from flagscale_deploy.remote.messages.record import RecordedServer


def as_placed(instance: RecordedServer, hosts: object) -> RecordedServer:
    """Return a group of the record with its ranks on these hosts, by rank; as it is where that cannot be.

    What is on none of them stands by.
    """
    ranks, spares = instance.get("ranks", []), instance.get("spares", [])
    members = {rank["host"]: rank for rank in (*ranks, *spares)}
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        return instance
    if len(hosts) != len(ranks) or len({*hosts} & members.keys()) != len(hosts):
        return instance
    return {
        **instance,
        "hosts": hosts,
        "gpus": {host: members[host]["gpus"] for host in hosts},
        "ranks": [
            {**members[host], "number": rank["number"], "role": rank["role"], "data_rank": rank["data_rank"]}
            for rank, host in zip(ranks, hosts, strict=True)
        ],
        "spares": [{**rank, "role": "spare"} for host, rank in members.items() if host not in hosts],
    }


def moves(planned: RecordedServer, placed: RecordedServer) -> str:
    """Return which ranks are on other hosts than planned, "" for none."""
    pairs = zip(planned.get("ranks", []), placed.get("ranks", []), strict=True)
    return "; ".join(
        f"rank {now['number']} is on {now['host']} instead of {before['host']}"
        for before, now in pairs
        if before["host"] != now["host"]
    )
