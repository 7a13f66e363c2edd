"""The keys of a host, the same in every form of inventory, and the types of their values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from flagscale_deploy.errors import Fault
from flagscale_deploy.inventory.document import Confidential, Encrypted, Section
from flagscale_deploy.inventory.model import ConnectionKind, Host, HostKeyChecking
from flagscale_deploy.inventory.ranges import is_ip_address
from flagscale_deploy.inventory.ssh_options import checked_ssh_options
from flagscale_deploy.inventory.tree import Located
from flagscale_deploy.secrets import LONGEST, Secret, is_secret_name
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.suggest import suggest
from flagscale_deploy.support.units import format_size

_WORD = r"^[^\s\x00-\x1f-][^\s\x00-\x1f]*$"
_LINE = r"^[^\x00-\x1f]+$"


def _no_boolean(value: object) -> object:
    # Python counts True as 1; nobody who writes `gpus: yes` means one GPU.
    if isinstance(value, bool):
        raise ValueError("a boolean")
    return value


def _host_key_checking(value: object) -> object:
    # YAML 1.1 reads `off` and `no` as False before we see them.
    return ("strict" if value else "off") if isinstance(value, bool) else value


def _ip_address(value: str) -> str:
    if not is_ip_address(value):
        raise ValueError("no address")
    return value


def _as_written(value: object) -> object:
    """Return environment values as text: the way the file has them, where the file is YAML."""
    if not isinstance(value, Mapping):
        return value
    written = value.written if isinstance(value, Section) else {}
    return {name: _text(item, written.get(name)) for name, item in value.items()}


def _text(value: object, written: str | None) -> object:
    if isinstance(value, bool):
        return written or str(value).lower()
    return (written or str(value)) if isinstance(value, (int, float)) else _bare(value)


_Word = Annotated[str, Field(pattern=_WORD)]
_Path = Annotated[str, Field(pattern=_LINE)]
_EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_EnvValue = Annotated[str, Field(pattern=r"^[^\x00]*$")]

_Env = Annotated[
    dict[_EnvName, _EnvValue],
    BeforeValidator(_as_written, json_schema_input_type=dict[_EnvName, _EnvValue | float | bool]),
]


def _key(expected: str, meaning: str, **limits: Any) -> Any:
    """Return an optional key: its title completes "expected …", its description is for the documentation."""
    return Field(None, title=expected, description=meaning, **limits)


class HostKeys(BaseModel):
    """The keys of a host beside its name."""

    model_config = ConfigDict(extra="forbid")

    address: _Word | None = _key("a host name or an IP address", "What SSH connects to. Default: the host's name")
    port: Annotated[int, BeforeValidator(_no_boolean)] | None = _key(
        "a port number from 1 to 65535", "SSH's port. Default: `~/.ssh/config`, else 22", ge=1, le=65535
    )
    user: _Word | None = _key("a login name", "Who logs in. Default: `~/.ssh/config`, else your own name")
    identity_file: _Path | None = _key(
        "the path of a private key", "On your machine. Default: `~/.ssh/config`, SSH agent, default keys"
    )
    proxy_jump: _Word | None = _key(
        "[user@]host[:port], several separated by commas", "Jump hosts on the way. Default: `~/.ssh/config`"
    )
    host_key_checking: (
        Annotated[HostKeyChecking, BeforeValidator(_host_key_checking, json_schema_input_type=HostKeyChecking | bool)]
        | None
    ) = _key(
        "strict, accept-new or off",
        "`strict`: known keys only; `accept-new`: learns new hosts, refuses changed keys. "
        "Default: `~/.ssh/config`, else `strict`",
    )
    known_hosts: _Path | None = _key(
        "the path of a known_hosts file", "On your machine. Default: `~/.ssh/config`, else `~/.ssh/known_hosts`"
    )
    ssh_options: Annotated[_Path, AfterValidator(checked_ssh_options)] | None = _key(
        "options of ssh(1) such as -o ProxyCommand='…' or -F FILE", "Given to `ssh`, which is asked. Default: none"
    )
    connection: ConnectionKind | None = _key("ssh or local", "`local`: this machine, without SSH. Default: `ssh`")
    python: _Path | None = _key(
        "a Python interpreter of the host, such as /usr/bin/python3",
        "Python 3.8 or later, for our own small programs. Default: `python3`",
    )
    gpus: Annotated[int, BeforeValidator(_no_boolean)] | None = _key(
        "a whole number of GPUs, from 0 to 9999",
        "GPUs that one deployment may use on this host. Default: what the probe finds",
        ge=0,
        le=9999,
    )
    type: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.:/-]*$")] | None = _key(
        "gpu, cpu, or the name of a Ray resource such as A100", "The kind of host. Default: `gpu`"
    )
    node_ip: Annotated[str, AfterValidator(_ip_address)] | None = _key(
        "an IP address of the host", "Its address in the data network. Default: the address that the probe finds"
    )
    interface: Annotated[str, Field(pattern=r"^[^\s/:]{1,15}$")] | None = _key(
        "the name of one network interface, such as eth0",
        "The data network's interface, for Ray, NCCL and Gloo. Default: the interface of `node_ip`",
    )
    env: _Env | None = _key(
        "a mapping of variable names to text or numbers",
        "Environment variables; values arrive as written (`on`, `010`, `1.50`). Default: none",
    )
    before_start: Annotated[str, Field(pattern=r"^[^\x00]*$")] | None = _key(
        "shell commands as text", "Run before Ray and vLLM start: `module load …`, `ulimit …`. Default: none"
    )
    venv: _Path | None = _key(
        "the path of a Python environment on the host",
        "Has Ray and vLLM; activated first. Default: the environment of the login",
    )
    container: _Word | None = _key("the name of a container on the host", "Ray and vLLM run in it. Default: none")


HOST_KEYS: Mapping[str, str] = {name: field.title or "" for name, field in HostKeys.model_fields.items()}
"""Every key with what is expected of it."""
_MAY_BE_SECRET = ("env", "identity_file", "known_hosts")
"""Keys whose values stand in no script, plan, record or command line."""


def fits(key: str, value: object) -> bool:
    """Return whether a value is of the type of a key; none, and empty text, count as absent."""
    if value in (None, "") or isinstance(value, Encrypted):
        return value in (None, "")
    return _fits_alike(key, type(value).__name__, value) if isinstance(value, str | int) else _fits(key, value)


def _fits(key: str, value: object) -> bool:
    try:
        HostKeys.model_validate({key: _bare(value)})
    except ValidationError:
        return False
    return not _is_encrypted(value)


@lru_cache(maxsize=4096)
def _fits_alike(key: str, _kind: str, value: str | int) -> bool:
    # Hosts of a group have the same values; True is no 1.
    return _fits(key, value)


def make_host(
    name: str, keys: Mapping[str, Located], variables: Mapping[str, object]
) -> tuple[Host | None, list[Fault]]:
    """Return the host, or None and what is wrong with its keys.

    A key without a value (null or empty text) counts as absent, so that a host can undo what its group says.
    """
    filled = {key: setting for key, setting in keys.items() if key not in HOST_KEYS or setting.value not in (None, "")}
    faults = [_encrypted(setting) for setting in filled.values() if _is_encrypted(setting.value)]
    faults += [confidential(setting.where) for key, setting in filled.items()
               if isinstance(setting.value, Confidential) and key not in _MAY_BE_SECRET]  # fmt: skip
    try:
        valid = HostKeys.model_validate({key: _bare(setting.value) for key, setting in filled.items()})
    except ValidationError as error:
        faults += [_fault(detail, filled) for detail in error.errors(include_url=False)]
    else:
        faults += [_too_long(name, filled["env"]) for name, value in (valid.env or {}).items()
                   if is_secret_name(name) and len(value) > LONGEST]  # fmt: skip
    if faults:
        return None, faults
    written = filled["env"].value if "env" in filled else None
    secret = (
        {str(key) for key, value in written.items() if isinstance(value, Confidential)}
        if isinstance(written, Mapping)
        else set()
    )
    fields = {key: getattr(valid, key) for key in filled} | _split(valid.env or {}, secret)
    return Host(**{"name": name, "address": name, **fields, "vars": variables}), []


def _too_long(name: str, env: Located) -> Fault:
    problem = f"is longer than {format_size(LONGEST)}"
    return Fault(f"{env.where}.{name}", problem, "send a file to the hosts, and set a variable to its path")


def _split(env: Mapping[str, str], secret: Collection[str]) -> dict[str, dict[str, str] | dict[str, Secret]]:
    """Return the variables whose values may be seen, and the secret ones: those of `secret`, and by their names."""
    hidden = {name: Secret(value) for name, value in env.items() if name in secret or is_secret_name(name)}
    return {"env": {name: value for name, value in env.items() if name not in hidden}, "secret_env": hidden}


_OTHER_NAMES = {
    "host": "address",
    "hostname": "address",
    "ip": "address",
    "slots": "gpus",
    "private_key_file": "identity_file",
    "key": "identity_file",
    "jump": "proxy_jump",
    "common_args": "proxy_jump",
}
"""Other tools' names of our keys that are not spelled alike."""


def nearest(word: str, names: Collection[str], fallback: str | None = None) -> str:
    """Return a remedy for an unknown word: the name that looks like it, else the fallback."""
    bare = word.removeprefix("ansible_").removeprefix("ssh_")
    other = _OTHER_NAMES.get(bare)
    return suggest(other if other is not None and other in names else bare, names, fallback)


def unknown_key(key: object, keys: Collection[str], where: str) -> Fault:
    """Return the fault of a key that is none of the known ones."""
    return Fault(where, f"found the unknown key {quoted(key)}", nearest(str(key), keys))


def _fault(detail: ErrorDetails, keys: Mapping[str, Located]) -> Fault:
    key, *inside = (str(part) for part in detail["loc"])
    place = keys[key]
    if detail["type"] == "extra_forbidden":
        return unknown_key(key, HOST_KEYS, place.where)
    if not inside:
        return Fault(place.where, f"found {shown(place.value)}, expected {HOST_KEYS[key]}", _remedy(key))
    if inside[-1] == "[key]":
        expected = "the name of an environment variable: letters, digits and _, no digit first"
        return Fault(place.where, f"found {quoted(inside[0])}, expected {expected}", "rename the variable")
    remedy = 'write "" for an empty value' if detail["input"] is None else "write it as text, in quotes"
    return Fault(f"{place.where}.{inside[0]}", f"found {shown(detail['input'])}, expected text or a number", remedy)


def _remedy(key: str) -> str:
    if key in ("env", "type"):
        return "if this variable is for something else, give that one another name"
    return "correct it there, or take it out"


def _is_encrypted(value: object) -> bool:
    return isinstance(value, Encrypted) or (isinstance(value, Mapping) and any(map(_is_encrypted, value.values())))


def confidential(where: str) -> Fault:
    """Return the fault of a key that a secret of the environment is in, and that is shown or sent as it is."""
    problem = "found a value made from a secret of your environment, which scripts and records would show"
    return Fault(where, problem, "put it into a variable of env")


def _encrypted(setting: Located) -> Fault:
    problem = "found a value encrypted with ansible-vault"
    return Fault(setting.where, problem, "write it in plain text; nothing is decrypted")


def _bare(value: object) -> object:
    """Return text without the type that marks its YAML tag."""
    return str(value) if isinstance(value, str) else value


def shown(value: object) -> str:
    """Return a value as a message quotes it, cut where it is long."""
    if isinstance(value, Confidential):
        return "a value made from a secret of your environment"
    return "no value" if value is None else quoted(value)
