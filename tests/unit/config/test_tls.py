"""`deploy.tls`: paths on the hosts, or files of this machine."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from flagscale_deploy.config.spec import TlsSpec
from flagscale_deploy.secrets import HIDDEN, Secret
from tests.tls import certificate
from tests.unit.config.files import SEED, faults, load

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


def tls(settings: str) -> str:
    return f"{SEED}  tls: {{{settings}}}\n"


def test_paths_on_the_hosts_stay_as_they_are(tmp_path: Path) -> None:
    assert load(SEED, folder=tmp_path).tls is None
    spec = load(tls("certfile: /etc/c.pem, keyfile: /etc/k.pem, cafile: /etc/ca.pem"), folder=tmp_path)
    assert spec.tls == TlsSpec("/etc/c.pem", "/etc/k.pem", "/etc/ca.pem")
    assert load(tls("certfile: /etc/both.pem"), folder=tmp_path).tls == TlsSpec("/etc/both.pem")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("keyfile: /k.pem", "deploy.tls.certfile: is not set\n"),
        ("certfile: c.pem", "deploy.tls.certfile: 'c.pem': expected an absolute path on the hosts\n"),
        ("certfile: /c.pem, keyfile: ~/k.pem", "deploy.tls.keyfile: '~/k.pem': expected an absolute path"),
        ("certfile: /c.pem, key: /k.pem", "deploy.tls.key: unknown key"),
        ("certfile: /no/such.pem, send: true", "deploy.tls.certfile: /no/such.pem does not exist"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, settings: str, problem: str) -> None:
    (fault,) = faults(tls(settings), folder=tmp_path)
    assert fault.startswith(f"qwen.yaml: {problem}")


def test_files_that_are_sent_are_read_here_and_the_key_is_shown_to_nobody(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "model", "10.0.0.1")
    text = tls(f"certfile: '{cert}', keyfile: '{key}', send: yes")
    spec = load(text, folder=tmp_path)
    assert spec.tls is not None
    assert (spec.tls.certfile, spec.tls.keyfile, spec.tls.authority) == ("tls.crt", "tls.key", str(cert))
    assert spec.tls.cafile == "tls.crt", "it vouches for itself"
    assert spec.tls.sent == {"tls.crt": Secret(cert.read_text()), "tls.key": Secret(key.read_text())}
    assert spec.tls.certificate is not None
    assert spec.tls.certificate.names == ("10.0.0.1",)
    assert spec.public()["tls"]["sent"] == {"tls.crt": HIDDEN, "tls.key": HIDDEN}
    assert "PRIVATE" not in f"{spec} {spec.public()}"


def test_an_authority_that_is_sent_is_what_clients_and_routers_trust(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "model")
    ca, _ = certificate(tmp_path, "authority")
    both = tmp_path / "both.pem"
    both.write_text(cert.read_text() + key.read_text())
    spec = load(tls(f"certfile: '{both}', cafile: '{ca}', send: true"), folder=tmp_path)
    assert spec.tls is not None
    assert (spec.tls.keyfile, spec.tls.cafile, spec.tls.authority) == (None, "tls-ca.crt", str(ca))
    assert spec.tls.sent["tls-ca.crt"] == ca.read_text()


def test_a_certificate_and_a_key_that_are_no_pair(tmp_path: Path) -> None:
    (cert, key), (_, other) = certificate(tmp_path, "model"), certificate(tmp_path, "other")
    (fault,) = faults(tls(f"certfile: '{cert}', keyfile: '{other}', send: true"), folder=tmp_path)
    assert fault.startswith(
        f"qwen.yaml: deploy.tls.keyfile: {cert.name} and {other.name} are not a certificate and its key"
    )
    (fault,) = faults(tls(f"certfile: '{cert}', send: true"), folder=tmp_path)
    assert fault.startswith(f"qwen.yaml: deploy.tls.certfile: {cert.name} does not hold a certificate and its key")
    locked, binary = tmp_path / "locked.key", tmp_path / "binary.crt"
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(private.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"sesame")))
    (fault,) = faults(tls(f"certfile: '{cert}', keyfile: '{locked}', send: true"), folder=tmp_path)
    assert "without a passphrase" in fault
    binary.write_bytes(ssl.PEM_cert_to_DER_cert(cert.read_text()))
    (fault,) = faults(tls(f"certfile: '{binary}', keyfile: '{key}', send: true"), folder=tmp_path)
    assert "is not in PEM" in fault
