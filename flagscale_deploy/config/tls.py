"""`deploy.tls`: paths on the hosts, or files of this machine that are sent to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path as FilePath

from flagscale_deploy.config.schema.places import Checked, KeyFaults, Path
from flagscale_deploy.config.schema.settings import Deploy, TlsSettings
from flagscale_deploy.config.spec import TlsSpec
from flagscale_deploy.errors import InputError
from flagscale_deploy.facts.model import TlsFile
from flagscale_deploy.remote.system import tls_files
from flagscale_deploy.secrets import Secret
from flagscale_deploy.support.input_files import read_bytes
from flagscale_deploy.support.planted import refuse_planted
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.units import MIB

SENT = {"certfile": "tls.crt", "keyfile": "tls.key", "cafile": "tls-ca.crt"}
"""The names of files that are sent, below `secrets/` of every host's state directory."""
MOST_PEM = MIB


def read_tls(deploy: Deploy, set_in: Mapping[str, Path]) -> Checked[TlsSpec | None]:
    """Return None where TLS is not set, or where it is wrong."""
    faults = KeyFaults()
    settings = deploy.tls
    if settings is None:
        return None, faults
    where = set_in["tls"]
    if settings.certfile is None:
        faults.add((*where, "certfile"), "is not set", "name the file of the certificate; or leave tls out")
        return None, faults
    return _read_sent(settings, where) if settings.send else _on_hosts(settings, where)


def _on_hosts(settings: TlsSettings, where: Path) -> Checked[TlsSpec | None]:
    faults = KeyFaults()
    for name, path in _files(settings).items():
        if not path.startswith("/"):
            remedy = "write /… for a file on every host; or send: true for one of your own machine"
            faults.add((*where, name), f"{quoted(path)}: expected an absolute path on the hosts", remedy)
    return TlsSpec(settings.certfile or "", settings.keyfile, settings.cafile), faults


def _read_sent(settings: TlsSettings, where: Path) -> Checked[TlsSpec | None]:
    """Read the files of this machine, and check that certificate and key are a pair."""
    faults = KeyFaults()
    paths = {name: FilePath(os.path.expanduser(path)) for name, path in _files(settings).items()}
    texts = {name: faults.take(_read(path, (*where, name))) for name, path in paths.items()}
    read = {name: text for name, text in texts.items() if text is not None}
    if read.keys() == paths.keys():
        faults += _mismatch(paths, where)
    if faults:
        return None, faults
    fields = tls_files.certificate(str(paths["certfile"]))
    certificate = TlsFile(
        mode=0o600,
        expires=fields.get("expires"),
        names=tuple(fields.get("names", ())),
        self_signed=fields.get("self_signed", False),
        hash=fields.get("hash", ""),
    )
    alone = "cafile" not in paths and certificate.self_signed
    names = {**SENT, "cafile": SENT["certfile"]} if alone else SENT
    authority = paths["certfile"] if alone else paths.get("cafile")
    return TlsSpec(
        certfile=names["certfile"],
        keyfile=names["keyfile"] if "keyfile" in paths else None,
        cafile=names["cafile"] if authority else None,
        sent={SENT[name]: text if name == "cafile" else Secret(text) for name, text in read.items()},
        certificate=certificate,
        authority=str(authority) if authority else None,
    ), faults


def _files(settings: TlsSettings) -> dict[str, str]:
    return {name: path for name in SENT if (path := getattr(settings, name)) is not None}


def _read(path: FilePath, where: Path) -> Checked[str | None]:
    faults = KeyFaults()
    try:
        refuse_planted(FilePath(), path)
        return read_bytes(path, MOST_PEM, pipes=False).decode("ascii"), faults
    except InputError as error:
        faults.add(where, f"{path} {error.faults[0].problem}", error.faults[0].remedy)
    except UnicodeDecodeError:
        remedy = "turn it into PEM: openssl x509 -inform der, openssl pkcs12 -nodes"
        faults.add(where, f"{path} is not in PEM", remedy)
    return None, faults


def _mismatch(paths: Mapping[str, FilePath], where: Path) -> KeyFaults:
    """Return a fault if OpenSSL refuses certificate and key for a server; vLLM cannot open an encrypted key."""
    import ssl  # not where TLS is not set: it loads OpenSSL

    faults = KeyFaults()
    key = paths.get("keyfile")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(paths["certfile"], key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = getattr(error, "reason", None) or str(error)
        files = f"{paths['certfile']} and {key} are not" if key else f"{paths['certfile']} does not hold"
        problem = f"{files} a certificate and its key: {why}"
        remedy = "give both in PEM, the key without a passphrase: openssl pkey -in KEY -out PLAIN"
        faults.add((*where, "keyfile" if key else "certfile"), problem, remedy)
    return faults
