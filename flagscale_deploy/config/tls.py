"""`deploy.tls`: paths on the hosts, or files of this machine that are sent to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath

from flagscale_deploy.config.schema.places import Findings, Path
from flagscale_deploy.config.schema.settings import Deploy, TlsSettings
from flagscale_deploy.config.spec import TlsSpec
from flagscale_deploy.facts.model import TlsFile
from flagscale_deploy.remote.system import tls_files
from flagscale_deploy.secrets import Secret

SENT = {"certfile": "tls.crt", "keyfile": "tls.key", "cafile": "tls-ca.crt"}
"""What files that are sent are called below `secrets/` of every host's state directory."""


def read_tls(deploy: Deploy, set_in: Mapping[str, Path], findings: Findings) -> TlsSpec | None:
    """None where nothing was asked for, or where it is wrong."""
    given = deploy.tls
    if given is None:
        return None
    where = set_in["tls"]
    if given.certfile is None:
        findings.add((*where, "certfile"), "is not set", "name the file of the certificate; or leave tls out")
        return None
    return _read_sent(given, where, findings) if given.send else _on_hosts(given, where, findings)


def _on_hosts(given: TlsSettings, where: Path, findings: Findings) -> TlsSpec:
    for name, path in _files(given).items():
        if not path.startswith("/"):
            remedy = "write /… for a file on every host; or send: true for one of your own machine"
            findings.add((*where, name), f"{path!r}: expected an absolute path on the hosts", remedy)
    return TlsSpec(given.certfile or "", given.keyfile, given.cafile)


def _read_sent(given: TlsSettings, where: Path, findings: Findings) -> TlsSpec | None:
    """The files as they are here. Whether certificate and key are a pair is found out here as well."""
    paths = {name: FilePath(written).expanduser() for name, written in _files(given).items()}
    read = {name: text for name, path in paths.items() if (text := _read(path, (*where, name), findings)) is not None}
    if read.keys() != paths.keys() or not _are_pair(paths, where, findings):
        return None
    known = tls_files.certificate(str(paths["certfile"]))
    seen = TlsFile(mode=0o600, **{**known, "names": tuple(known.get("names", ()))})
    alone = "cafile" not in paths and seen.self_signed
    names = {**SENT, "cafile": SENT["certfile"]} if alone else SENT
    authority = paths["certfile"] if alone else paths.get("cafile")
    return TlsSpec(
        certfile=names["certfile"],
        keyfile=names["keyfile"] if "keyfile" in paths else None,
        cafile=names["cafile"] if authority else None,
        sent={SENT[name]: text if name == "cafile" else Secret(text) for name, text in read.items()},
        certificate=seen,
        authority=str(authority) if authority else None,
    )


def _files(given: TlsSettings) -> dict[str, str]:
    return {name: path for name in SENT if (path := getattr(given, name)) is not None}


def _read(path: FilePath, where: Path, findings: Findings) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        findings.add(where, f"{path} cannot be read: {error.strerror}", "a relative path starts where you are")
    except ValueError:
        findings.add(
            where, f"{path} is not in PEM", "turn it into PEM: openssl x509 -inform der, openssl pkcs12 -nodes"
        )
    return None


def _are_pair(paths: Mapping[str, FilePath], where: Path, findings: Findings) -> bool:
    """Whether OpenSSL takes certificate and key for a server's; an encrypted key is none that vLLM could open."""
    import ssl  # not where no TLS is asked for: it loads OpenSSL

    key = paths.get("keyfile")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(paths["certfile"], key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = getattr(error, "reason", None) or str(error)
        found = f"{paths['certfile']} and {key or 'itself'} are no certificate with its key: {why}"
        remedy = "give both in PEM, the key without a passphrase: openssl pkey -in KEY -out PLAIN"
        findings.add((*where, "keyfile" if key else "certfile"), found, remedy)
        return False
    return True
