"""Where a deployment keeps what it leaves on a host. One directory a host: a shared home must not collide."""

import os
from pathlib import Path
from typing import List
from urllib.parse import quote

MARKER = "FLAGSCALE_DEPLOY_RUN"
"""The environment variable every process of a deployment is started with: `<deployment>/<run_id>`."""


def root() -> Path:
    """`~/.flagscale-deploy`, by $HOME as a login shell has it."""
    return Path(os.path.expanduser("~")) / ".flagscale-deploy"


def directory(deployment: str, host: str) -> Path:
    """The state directory of a deployment on a host; `host` is the inventory name, made safe as a file name."""
    return root() / quote(deployment, safe="") / quote(host, safe="")


def records(host: str) -> List[Path]:
    """The record of every deployment that was recorded for this host."""
    return sorted(root().glob("*/%s/record.json" % quote(host, safe="").replace("[", "[[]")))
