"""What a host says of the files of TLS."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.facts.model import Facts, TlsFile
from flagscale_deploy.remote.system import tls_files
from tests.tls import certificate


def test_a_certificate_its_key_and_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    cert, key = certificate(tmp_path, "model", "10.0.0.1", "fd00::1")
    paths = [str(cert), cert.name, key.name, "none.pem"]
    answer: Any = {"tls_files": tls_files.observe(paths)}
    seen = Facts.parse(answer).tls_files
    assert seen[str(cert)] == seen[cert.name]
    assert seen[cert.name].self_signed
    assert [name.lower() for name in seen[cert.name].names] == ["10.0.0.1", "fd00:0:0:0:0:0:0:1"]
    assert 1 < ((seen[cert.name].expires or 0) - time.time()) / 86400 < 2.1
    assert seen[key.name] == TlsFile(mode=0o600), "of a key no hash"
    assert seen["none.pem"].problem == "No such file or directory"
