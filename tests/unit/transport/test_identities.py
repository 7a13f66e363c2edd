"""Identity and certificate files: whatever lies there, a login neither waits for it nor reads much of it."""

from __future__ import annotations

import ast
import resource
import time
from pathlib import Path

import pytest

import flagscale_deploy
from flagscale_deploy.transport.identities import identities
from flagscale_deploy.transport.ssh_settings import Settings
from tests.unit.hostile_input import DOCUMENTS, FILES

SECONDS = 20.0
MEMORY = 64 << 10
PLACES = ("key", "key.pub", "key-cert.pub", "certificate")
READ_BY_NAME = ("from_private_key_file", "from_path", "from_file", "load_host_keys", "load_system_host_keys")


def offered(folder: Path) -> int:
    settings = Settings(
        "gpu01",
        "gpu01",
        "root",
        identity_files=(str(folder / "key"),),
        certificate_files=(str(folder / "certificate"),),
    )
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    offers = identities(settings).offers
    assert time.process_time() - began < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEMORY
    return len(offers)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", FILES)
def test_no_login_waits_for_a_key_that_is_no_file(tmp_path: Path, place: str, kind: str) -> None:
    FILES[kind](tmp_path / place)
    assert offered(tmp_path) == 0


@pytest.mark.parametrize("place", PLACES)
def test_no_login_fails_on_what_a_key_file_holds(tmp_path: Path, place: str) -> None:
    texts = [*DOCUMENTS.values(), "ssh-rsa", "ssh-rsa AAAA", "ssh-ed25519-cert-v01@openssh.com AAAA", "x" * (2 << 20)]
    for number, content in enumerate(texts):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / place).write_bytes(content if isinstance(content, bytes) else content.encode())
        (folder / place).chmod(0o600)
        assert offered(folder) == 0


def test_no_login_fails_on_the_name_of_a_key_file() -> None:
    for name in ("\0", "x" * 5000, "\ud800", "", "/dev/zero\0", "~"):
        settings = Settings("gpu01", "gpu01", "root", identity_files=(name,), certificate_files=(name,))
        assert identities(settings).offers == []


def test_paramiko_is_given_no_file_name() -> None:
    """Of Paramiko's functions that open a file by its name none is called."""
    calls = [
        f"{path.name}:{node.lineno}: {node.func.attr}"
        for path in (Path(flagscale_deploy.__file__).parent / "transport").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in READ_BY_NAME
        or any(keyword.arg in ("key_filename", "filename") for keyword in node.keywords)
        or (node.func.attr == "load_certificate" and not isinstance(node.args[0], ast.Call))
    ]
    assert calls == []
