"""Ask a server on this host over its OpenAI API, with the key that only this host's secrets have."""

import http.client
import json
import os
import shlex
import ssl
import urllib.error
import urllib.request
from typing import Mapping, Optional, Set, Tuple

from flagscale_deploy.remote.deployment import record, state

PARTIAL_CHAIN = 0x80000
"""OpenSSL's X509_V_FLAG_PARTIAL_CHAIN: a certificate that is trusted by itself needs no authority above it."""

_certificates: Set[str] = set()


def api_key(deployment: str, host: str) -> Optional[str]:
    """Return VLLM_API_KEY as the secrets of the deployment have it.

    From now on `request` trusts the certificates that its servers here were started with, and no others: a self-signed
    one too, and nobody else who took their port.
    """
    deployed = record.read(deployment, host) or {}
    given = [server.get("certificate") for server in deployed.get("instances", []) if server.get("driver") == host]
    trust(*(path for path in given if path))
    try:
        words = shlex.split((state.directory(deployment, host) / "secrets" / "env").read_text())
    except (OSError, ValueError):
        return None
    return next((word.split("=", 1)[1] for word in words if word.startswith("VLLM_API_KEY=")), None)


def trust(*certificates: str) -> None:
    """Trust these files from now on, and no others. A relative path starts at home, where engines run."""
    _certificates.update(os.path.join(os.path.expanduser("~"), path) for path in certificates)


def request(
    url: str, body: Optional[Mapping[str, object]] = None, key: Optional[str] = None, timeout: float = 30.0
) -> Tuple[int, str]:
    """Return status and text of a reply; errors of HTTP are replies. Raises OSError where none came, or no HTTP."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = "Bearer " + key
    data = None if body is None else json.dumps(body).encode()
    verified = _context() if url.startswith("https") else None
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),  # http_proxy is for the world outside, not for this host
        *([urllib.request.HTTPSHandler(context=verified)] if verified else []),
    )
    try:
        try:
            with opener.open(urllib.request.Request(url, data=data, headers=headers), timeout=timeout) as answer:
                return answer.status, answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode("utf-8", "replace")
    except http.client.HTTPException as error:
        raise OSError("not an HTTP answer: %s %s" % (type(error).__name__, str(error)[:200])) from error


def _context() -> ssl.SSLContext:
    """Return what trusts the certificates of `trust`; their names are for clients, and not for this address."""
    context = ssl.create_default_context()
    context.check_hostname = False
    for path in _certificates:
        context.load_verify_locations(cafile=path)
    if _certificates:
        context.verify_flags = ssl.VerifyFlags(context.verify_flags | PARTIAL_CHAIN)
    return context


def one_token(url: str, model: str, key: Optional[str], timeout: float) -> Tuple[bool, str]:
    """Return whether a server really answers: one token of a completion, or an embedding where it serves those.

    The text is the reply's beginning, or what is wrong.
    """
    body = {"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
    status, text = request(url + "/v1/completions", body, key, timeout)
    if status == 404 or (status == 400 and "does not support" in text):
        status, text = request(url + "/v1/embeddings", {"model": model, "input": "Hello"}, key, timeout)
        return status == 200, text[:500]
    if status != 200:
        return False, "HTTP %d: %s" % (status, text[:500])
    try:
        answer = json.loads(text)
        return answer["usage"]["completion_tokens"] >= 1, str(answer["choices"][0]["text"])
    except (ValueError, KeyError, IndexError, TypeError):
        return False, "not a completion: %s" % text[:500]
