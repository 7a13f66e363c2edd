"""Verify the certificates that hosts show for their keys."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)
from paramiko.pkey import PublicBlob


def certificate_problem(blob: PublicBlob, host: str, authorities: Iterable[str]) -> str:
    """Return why a certificate does not vouch for a host, in words that follow "a certificate that"; "" where it does.

    `authorities` are the keys of known authorities, in base64. The rules are those of OpenSSH (PROTOCOL.certkeys).
    """
    try:
        certificate = load_ssh_public_identity(f"{blob.key_type} {base64.b64encode(blob.key_blob).decode()}".encode())
        if not isinstance(certificate, SSHCertificate):
            return "is none"
        signer = certificate.signature_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1].decode()
        if signer not in authorities:
            return "no known authority has signed"
        certificate.verify_cert_signature()
    except InvalidSignature:
        return "has a wrong signature"
    except (ValueError, UnsupportedAlgorithm) as error:
        return f"cannot be read ({error})"
    return _problem_of_content(certificate, host)


def _problem_of_content(certificate: SSHCertificate, host: str) -> str:
    if certificate.type is not SSHCertificateType.HOST:
        return "is for users, not for hosts"
    if getattr(certificate, "_inner_sig_type", b"ssh-rsa") == b"ssh-rsa":
        return "is signed with SHA-1"
    if certificate.critical_options:
        return "has options that are not supported"
    names = [name.decode(errors="replace").lower() for name in certificate.valid_principals]
    if names and host.lower() not in names:
        return f"is for {', '.join(names)}"
    now = time.time()
    if now < certificate.valid_after:
        return "is not valid yet"
    return "has expired" if now >= certificate.valid_before else ""
