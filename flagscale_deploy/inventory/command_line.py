"""Command lines of this tool, to paste, for the hosts of the command at hand."""

from __future__ import annotations

import re

from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.support.shell import join


def again(inventory: Inventory, act: str, deployment: str, *words: str) -> str:
    """Return `flagscale-deploy ACT -i hosts.yaml --name DEPLOYMENT`, whatever the defaults of another terminal are.

    Further `words` come last.
    """
    options = ("-i", inventory.source) if inventory.options is None else inventory.options
    return _line("flagscale-deploy", act, *options, "--name", deployment, *words)


def push(inventory: Inventory, source: str, path: str, host: str) -> str:
    """Return `flagscale-deploy push SOURCE PATH -i hosts.yaml --limit HOST`, "" where `push` cannot be told so.

    It takes its hosts from an inventory, and paths that are absolute.
    """
    options = ("-i", inventory.source) if inventory.options is None else inventory.options
    if options[:1] != ("-i",) or "-c" in options or not path.startswith("/") or not _PLAIN.fullmatch(host):
        return ""
    return _line("flagscale-deploy", "push", source, path, *options[:2], "--limit", host)


def _line(*words: str) -> str:
    return join(word.replace("\0", "?") for word in words)


_PLAIN = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
"""A host's name that is a host pattern, too."""
