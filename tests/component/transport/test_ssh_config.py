"""Generated SSH configurations: what we resolve is what `ssh -G` prints, whatever is asked together or remembered."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport.route import find_route
from flagscale_deploy.transport.ssh_config import Resolver
from flagscale_deploy.transport.ssh_config_cache import SshConfigCache
from flagscale_deploy.transport.ssh_settings import Answer, ConfigProblem, Destination
from tests.component.transport.oracle import ask_ssh

FILES = 500 if os.environ.get("FSD_FAULTS") == "all" else 30
NAMES = ("gpu01", "gpu02", "gpu1", "node-a", "node-b", "bastion", "Big", "10.0.0.7")
PATTERNS = (*NAMES[:6], "gpu*", "gpu0?", "node-?", "*", "!gpu02", "!bastion", "10.0.*")
pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="compares with ssh, which is not here")


class Writer:
    """Writes a configuration with files that it includes."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._random, self._folder, self._count = random.Random(seed), folder, 0

    def write(self, path: Path, depth: int = 0) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = [line for _ in range(self._random.randint(1, 6)) for line in self._block(depth)]
        path.write_bytes(("\n".join(lines) + "\n").encode("latin-1"))
        path.chmod(0o600)

    def _block(self, depth: int) -> Iterator[str]:
        pick = self._random.choice
        some = self._random.sample(PATTERNS, self._random.randint(1, 3))
        yield pick((
            f"Host {' '.join(some)}", f"Host {pick(NAMES)}", f"Host {pick(NAMES)} # it's a comment", "host = *",
            f"Match host {pick(PATTERNS)}", f"Match originalhost={pick(NAMES)},{pick(PATTERNS)}", "Match all", "",
            f"Match user root host {pick(PATTERNS)}", f"Match !host {pick(NAMES)}", "Match final all", "# B\xfcro",
        ))  # fmt: skip
        for _ in range(self._random.randint(0, 4)):
            yield self._line(depth)

    def _line(self, depth: int) -> str:
        pick = self._random.choice
        if depth < 2 and self._random.random() < 0.2:
            self._count += 1
            name = f"part{self._count}.conf"
            self.write(self._folder / ".ssh" / name, depth + 1)
            return pick(
                (f"Include {name}", f"Include ~/.ssh/{name}", f'  Include "{self._folder}/.ssh/{name}" missing*')
            )
        return "  " + pick((
            f"HostName {pick(NAMES)}.example", "HostName %h.lab", f"HostName 10.1.0.{pick('123')} # here",
            f"Port {self._random.randint(20, 23)}", "Port = 2222", "User ubuntu", 'User "root"', "User op",
            "IdentityFile ~/.ssh/%n_%r", "IdentityFile none", 'IdentityFile "~/my k/${HOME}"', "IdentitiesOnly yes",
            f"ProxyJump {pick(NAMES)}", f"ProxyJump root@{pick(NAMES)}:22,[::1]:23", "ProxyJump none",
            "ProxyCommand nc -x 'a b' %h %p", "ProxyCommand none", "HostKeyAlias Alias", "UserKnownHostsFile ~/a ~/b",
            "StrictHostKeyChecking accept-new", "IdentityAgent none", "CertificateFile ~/c", "ConnectTimeout 7",
            "AddressFamily inet6", "ServerAliveInterval 9", "ForwardAgent yes", "CanonicalizeHostname no",
        ))  # fmt: skip


def asked(config: Path, destination: Destination) -> Answer | None:
    """Return what ssh prints for one destination; None where it would jump through the host itself."""
    answer, complaint = ask_ssh(config, destination)
    assert answer is not None or "jumphost loop" in complaint
    return answer


DESTINATIONS = [
    *(Destination(name) for name in NAMES),
    Destination("gpu01", user="somebody", port=2200),
    Destination("gpu02", identity_file='~/a "key"', proxy_jump="none"),
    Destination("node-a", options=("-o", "ProxyCommand=nc %h %p", "-o", "HostKeyAlias=x")),
]


@pytest.mark.parametrize("seed", range(FILES))
def test_a_generated_configuration_means_what_it_means_to_ssh(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / ".ssh/config"
    Writer(tmp_path, seed).write(config)
    for _ in range(2):  # the second time from what is remembered
        resolver = Resolver(shutil.which("ssh"), SshConfigCache(tmp_path / "cache"))
        source = resolver.source(None)
        for destination in DESTINATIONS:
            resolver.expect(destination)
        for destination in DESTINATIONS:
            expected = asked(Path(source.file_words[1]), destination)
            if expected is None:  # we may have its answer from others of its group; `find_route` refuses it
                with pytest.raises(ConfigProblem):
                    find_route(Host(destination.alias, destination.alias), resolver)
                continue
            ours = resolver.answer(destination)
            if source.groups.matter:
                assert ours == {key: expected[key] for key in ours}, config.read_text("latin-1")
                assert {"hostname", "user", "port"} <= set(ours)
            resolver.resolve(destination)
