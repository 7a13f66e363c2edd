"""Reads logs for the cause of a failure: known signatures first, else the first error that is not a mere consequence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Signature:
    """An error text that users meet, what causes it, and what to do. `source` is where the fact comes from."""

    pattern: str
    cause: str
    remedy: str
    source: str = "measured with vLLM 0.32 and Ray 2.60"


@dataclass(frozen=True)
class Diagnosis:
    """The root cause in logs: the line, the host and file it stands in, and, if its text is known, cause and remedy."""

    host: str
    file: str
    line: str
    cause: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        said = f"{self.host}: {self.file}: {self.line}"
        said += f"\n    cause: {self.cause}" if self.cause else ""
        return said + (f"\n    → {self.remedy}" if self.remedy else "")


_S = Signature
SIGNATURES: tuple[Signature, ...] = (
    _S(r"ray: command not found|Failed to import Ray|No module named 'ray'|ray: not found",
       "the environment with Ray is not active on the host, or Ray is not installed (vLLM no longer brings it)",
       "set venv or before_start for the host; pip install 'ray[default]'"),
    _S(r"vllm: (command )?not found|No module named 'vllm'",
       "the environment with vLLM is not active on the host", "set venv or before_start for the host"),
    _S(r"before_start failed|before_start.*No such file", "before_start failed on the host", "run it there by hand"),
    _S(r"unrecognized arguments:|invalid choice:|error: argument ",
       "the vLLM on this host does not know a flag or value", "compare with `vllm serve --help=all` on the driver host"),
    _S(r"Version mismatch: The cluster was started with",
       "Ray or Python differ between hosts; the patch level matters", "install the same versions on every host"),
    _S(r"InvalidAuthToken|AuthenticationError: RPC error",
       "Ray's token is missing or another one on this host", "stop, then run again: a new token is sent to every host"),
    _S(r"Ray's head .* cannot be reached from here|Failed to connect to GCS at address",
       "the host cannot reach the head's Ray port", "check node_ip/interface of the head, routes and firewalls"),
    _S(r"No available node types can fulfill resource request|node:[0-9a-fA-F.:]+': 0\.001",
       "VLLM_HOST_IP differs from the address Ray knows the node by", "remove VLLM_HOST_IP from envs, or correct node_ip"),
    _S(r"Cannot provide a placement group requiring", "fewer GPUs free in Ray than the instance needs",
       "look at `status`: a worker may be missing, or another instance holds its GPUs"),
    _S(r"HFValidationError: Repo id must be in the form|Can't load the configuration of|does not appear to have a file named"
       r"|is not a local folder and is not a valid model|Invalid repository ID or local directory",
       "the model's path does not exist on this host, or is not a model", "put the model there, or correct the path"),
    _S(r"Cannot access gated repo|401 Client Error|GatedRepoError",
       "the Hugging Face token is missing on this host", "deploy.secrets: [HF_TOKEN], with HF_TOKEN set where you type"),
    _S(r"trust_remote_code", "the model brings code of its own", "add trust-remote-code, if you trust the model's authors"),
    _S(r"Free memory on device .* on startup is less than desired GPU memory utilization",
       "another process holds memory of the GPU", "`check` says who; lower gpu-memory-utilization, or end it"),
    _S(r"CUDA out of memory|OutOfMemoryError|No available memory for the cache blocks",
       "the model with its KV cache does not fit", "lower max-model-len or raise gpu-memory-utilization, or use more GPUs"),
    _S(r"is larger than the maximum number of tokens that can be stored in KV cache",
       "the KV cache is too small for max-model-len", "lower max-model-len, or raise gpu-memory-utilization"),
    _S(r"shared memory segment /dev/shm/nccl-.*No space left|/dev/shm.*No space left",
       "/dev/shm is too small", "enlarge it: mount -o remount,size=16G /dev/shm (--shm-size for containers)"),
    _S(r"Gloo connectFullMesh failed.*127\.0\.0\.1|Unable to resolve hostname to a \(local\) address",
       "the hostname resolves to a loopback address", "set interface for the host, or correct /etc/hosts"),
    _S(r"Unable to find interface for: \[0\.0\.0", "the hostname is a number", "give the host a name with a letter"),
    _S(r"Unable to find address for:", "the network interface named for Gloo does not exist on this host",
       "correct interface, or GLOO_SOCKET_IFNAME in envs"),
    _S(r"NCCL error: unhandled system error", "NCCL cannot use the network or /dev/shm",
       "set interface; check /dev/shm; NCCL_DEBUG=INFO in envs says more"),
    _S(r"address already in use|EADDRINUSE|Ray is trying to start at .* but is already running at",
       "a port is taken", "`check` says who holds it; choose another port"),
    _S(r"Too many open files", "the limit of open files is too low", "ulimit -n 65536 in before_start"),
    _S(r"AF_UNIX path length cannot exceed", "Ray's temporary directory has too long a name", "report this: it is ours"),
    _S(r"NVIDIA driver .* is too old|no kernel image is available", "the NVIDIA driver or the wheel does not match the GPU",
       "update the driver, or install the build of vLLM for it"),
    _S(r"Permission denied: '/tmp/ray'", "Ray's temporary directory is another user's", "remove TMPDIR/RAY_TMPDIR from envs"),
    _S(r"Timed out waiting for engine core processes to start", "loading the weights takes longer than vLLM waits",
       "VLLM_ENGINE_READY_TIMEOUT_S in envs; look at the disk that holds the weights"),
    _S(r"No space left on device", "a disk is full", "df -h on the host; `cleanup` removes old logs"),
)  # fmt: skip

_KNOWN = [(re.compile(each.pattern), each) for each in SIGNATURES]
_CONSEQUENCE = re.compile(r"See root cause above|Engine core initialization failed|EngineDeadError|During handling of")
_EXCEPTION = re.compile(r"(?:^|[\s\]])((?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt)): \S")
_ERROR = re.compile(r"\b(ERROR|FATAL|CRITICAL)\b|[Ee]rror:|: not found|No such file|Killed|Segmentation fault")


def diagnose(logs: Iterable[tuple[str, str, Iterable[str]]]) -> Diagnosis | None:
    """The root cause in logs given as (host, file, lines); None where nothing looks like an error.

    A known signature wins over any other error, and the earlier table entry over the later one: it is nearer to the cause.
    """
    best: tuple[int, Diagnosis] | None = None
    fallback: tuple[int, Diagnosis] | None = None
    for host, file, lines in logs:
        for line in lines:
            rank, signature = _match(line)
            if signature is not None and (best is None or rank < best[0]):
                best = rank, Diagnosis(host, file, clean(line), signature.cause, signature.remedy)
            if best is None and (weight := _weight(line)) and (fallback is None or weight < fallback[0]):
                fallback = weight, Diagnosis(host, file, clean(line))
    found = best or fallback
    return found[1] if found else None


def error_lines(lines: Iterable[str], most: int = 8) -> list[str]:
    """The lines that carry an error, consequences left out, the first ones first; each only once."""
    found: dict[str, None] = {}
    for line in lines:
        if _match(line)[1] is not None or _weight(line):
            found.setdefault(clean(line))
    return list(found)[:most]


def clean(line: str) -> str:
    """A log line without the process and logger prefixes that vLLM puts before it."""
    return (
        re.sub(r"^(?:\x1b\[[0-9;]*m|\([^)]*pid=[^)]*\)|(?:ERROR|INFO|WARNING) [\d-]+ [\d:.]+ \[[^\]]*\]|\s)+", "", line)
        or line
    )


def _match(line: str) -> tuple[int, Signature | None]:
    for rank, (pattern, signature) in enumerate(_KNOWN):
        if pattern.search(line):
            return rank, signature
    return len(_KNOWN), None


def _weight(line: str) -> int:
    """1 for an exception's own line, 2 for something that calls itself an error, 0 for neither."""
    if _CONSEQUENCE.search(line):
        return 0
    return 1 if _EXCEPTION.search(line) else 2 if _ERROR.search(line) else 0


def by_host(logs: Mapping[str, Mapping[str, Iterable[str]]]) -> Iterable[tuple[str, str, Iterable[str]]]:
    """{host: {file: lines}} in the shape `diagnose` takes."""
    return ((host, file, lines) for host, files in logs.items() for file, lines in files.items())
