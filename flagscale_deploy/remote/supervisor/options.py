"""The options of `supervise`, as launch scripts give them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Sequence


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options, and the server's command line as `command`."""
    parser = argparse.ArgumentParser(prog="supervise", allow_abbrev=False)
    parser.add_argument("--state", type=Path, required=True, help="the deployment's state directory on this host")
    parser.add_argument("--run", required=True, help="the run's id")
    parser.add_argument("--script", required=True, help="the launch script's name")
    parser.add_argument("--name", required=True, help="the server's name")
    parser.add_argument("--max", type=int, required=True, help="the most restarts in a row")
    parser.add_argument("--first", type=float, required=True, help="seconds before the first restart")
    parser.add_argument("--factor", type=float, required=True, help="factor of the delay from one restart to the next")
    parser.add_argument("--ceiling", type=float, required=True, help="the longest delay, in seconds")
    parser.add_argument("--reset-after", type=float, required=True, help="seconds of health that reset the count")
    parser.add_argument("--health", default="", help="the URL to which a healthy server replies with 200")
    parser.add_argument("--hang", type=float, default=0.0, help="seconds without a token after which it hangs; 0: off")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds of quiet before a probe; 0: no probes")
    parser.add_argument("--model", default="", help="the model that a probe asks for")
    parser.add_argument("--certificate", help="the file of the server's TLS certificate")
    parser.add_argument("--ray-gpus", type=int, help="GPUs that must be free in Ray before a restart")
    parser.add_argument("--ray-seconds", type=float, default=180.0, help="the most seconds to wait for them")
    parser.add_argument("--ray-spare", type=float, help="seconds after which Ray's free GPUs do, without all its nodes")
    parser.add_argument("--ray-head", default="", help="the address of Ray's head, which this worker's node joins")
    parser.add_argument("--ray-head-host", default="", help="and the host's name")
    parser.add_argument("--router", default="", help="the model whose servers, by the record, this router has")
    parser.add_argument("--may-end", action="store_true", help="exit status 0 means that its work is done")
    parser.add_argument("--parts", action="store_true", help="it is none without its engine cores and workers")
    parser.add_argument(
        "--group-hosts", default="", help="the hosts of its group's ranks, with commas, the leader first"
    )
    parser.add_argument("--group-rank", type=int, default=0, help="its own rank")
    parser.add_argument("--group-address", default="", help="the address at which the leader listens")
    parser.add_argument("--group-port", type=int, default=0, help="and the port")
    parser.add_argument("--group-peers", default="", help="the addresses of the group's hosts, with commas")
    parser.add_argument("--group-spares", default="", help="the group's hosts without a rank, with commas")
    parser.add_argument("--rank-words", default="", help="JSON: what is each rank's own in the command line, by rank")
    parser.add_argument("--gpus", default="", help="the GPUs of a rank on this host, with commas")
    parser.add_argument("--model-path", default="", help="the model's files on this host")
    parser.add_argument("--lost", type=float, default=60.0, help="seconds after which a silent member is lost")
    parser.add_argument("--notify", action="store_true", help="scripts/notify.sh is told what becomes of restarts")
    end = list(words).index("--")
    options = parser.parse_args(list(words[:end]))
    options.command = list(words[end + 1 :])
    return options
