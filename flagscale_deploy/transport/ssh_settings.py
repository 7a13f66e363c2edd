"""The settings of one SSH connection, as `ssh -G` prints them, with tokens and variables expanded."""

from __future__ import annotations

import functools
import hashlib
import os
import pwd
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flagscale_deploy.support.quote import quoted

Answer = Mapping[str, Sequence[str]]
"""The values of each keyword, in lower case, as `ssh -G` prints them."""

DEFAULT_KEYS = tuple(f"~/.ssh/id_{kind}" for kind in ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk"))
USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
SYSTEM_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_NONE = ("", "none")
_NO_HOST = re.compile(r"^-|['`\"$\\;&<>|(){}\s\x00-\x1f\x7f]")
_NO_USER = re.compile(r"^-|['`\";&<>|(){}\x00-\x1f\x7f]|\s-|\\\Z|\$(?!\Z)")
"""What OpenSSH refuses in names (ssh.c, valid_hostname and valid_ruser): a ProxyCommand is a command of a shell."""
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


class ConfigProblem(ValueError):
    """The SSH configuration of a host cannot be followed."""

    def __init__(self, problem: str, remedy: str = "correct it in the SSH configuration; `ssh -G` shows its values"):
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


@dataclass(frozen=True)
class Destination:
    """What ssh would be given on its command line: a name, and what goes before the configuration files.

    `options` are words such as `-o`, `ProxyCommand=…`; `config_file` is the argument of `-F`.
    """

    alias: str
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    proxy_jump: str | None = None
    options: tuple[str, ...] = ()
    config_file: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words of the command line, without `-F`."""
        user = ("-l", self.user) if self.user else ()
        port = ("-p", str(self.port)) if self.port else ()
        return (*self.settings, *self.options, *user, *port, "--", self.alias)

    @property
    def settings(self) -> tuple[str, ...]:
        """Return the options that the inventory's own keys mean."""
        words: list[str] = []
        if self.identity_file:
            words += ["-o", f"IdentityFile={argument(self.identity_file)}"]
        if self.proxy_jump:
            words += ["-o", f"ProxyJump={self.proxy_jump}"]
        return tuple(words)


@dataclass(frozen=True)
class Settings:
    """What one connection is made with. `jumps` is as in ProxyJump: the first hop first, `[user@]host[:port]` each."""

    alias: str
    hostname: str
    user: str
    port: int = 22
    jumps: tuple[str, ...] = ()
    proxy_command: str | None = None
    proxy_pattern: str | None = None
    """The ProxyCommand with its tokens: equal for all hosts that it is the way to."""
    identity_files: tuple[str, ...] = DEFAULT_KEYS
    preferred_key: str | None = None
    """The identity file that the inventory names."""
    certificate_files: tuple[str, ...] = ()
    identity_agent: str | None = None
    identities_only: bool = False
    strict: str = "ask"
    host_key_alias: str | None = None
    user_known_hosts: tuple[Path, ...] = ()
    global_known_hosts: tuple[Path, ...] = ()
    revoked_host_keys: str | None = None
    connect_timeout: float | None = None
    family: socket.AddressFamily = socket.AF_UNSPEC
    bind_address: str | None = None
    config_file: str | None = None

    @property
    def where(self) -> str:
        """Return its address for a message, with the port unless that is SSH's."""
        return self.hostname if self.port == 22 else f"{self.hostname}:{self.port}"


def settings_of(destination: Destination, answer: Answer) -> Settings:
    """Return the settings that an answer means. Raises ConfigProblem for a token or variable that is unknown."""
    value = functools.partial(_value, answer)
    user, _, name = destination.alias.rpartition("@")
    alias, hostname = name, value("hostname") or name
    login = value("user") or user or local_user()
    port = int(value("port") or 22)
    _refuse_shell(login, alias, hostname)
    jump = value("proxyjump")
    tokens = _tokens(alias, hostname, port, login, value("hostkeyalias"), jump)
    at_proxy = {token: tokens[token] for token in "%hnpr"}
    expand = functools.partial(expanded, tokens=tokens)
    command = value("proxycommand")
    seconds = value("connecttimeout")
    keys = tuple(expand(path) for path in answer.get("identityfile", ()) if path.lower() not in _NONE)
    return Settings(
        alias=alias,
        hostname=hostname,
        user=login,
        port=port,
        jumps=tuple(percent_expanded(hop.strip(), at_proxy) for hop in jump.split(",")) if jump else (),
        proxy_command=percent_expanded(command, at_proxy) if command else None,
        proxy_pattern=command,
        identity_files=keys,
        preferred_key=keys[0] if destination.identity_file and keys else None,
        certificate_files=tuple(expand(path) for path in answer.get("certificatefile", ()) if path not in _NONE),
        identity_agent=_agent(answer, expand),
        identities_only=value("identitiesonly") in ("yes", "true"),
        strict=(value("stricthostkeychecking") or "ask").lower(),
        host_key_alias=value("hostkeyalias"),
        user_known_hosts=_files(answer, "userknownhostsfile", USER_KNOWN_HOSTS, tokens),
        global_known_hosts=_files(answer, "globalknownhostsfile", SYSTEM_KNOWN_HOSTS),
        revoked_host_keys=expand(revoked) if (revoked := value("revokedhostkeys")) else None,
        connect_timeout=float(seconds) if seconds and seconds.isdigit() else None,
        family=_FAMILIES.get(value("addressfamily") or "", socket.AF_UNSPEC),
        bind_address=value("bindaddress"),
        config_file=destination.config_file,
    )


def parse_jump(spec: str) -> tuple[str | None, str, int | None]:
    """Return user, host and port of a jump host: `[user@]host[:port]`, `[::1]:22` or `ssh://…`."""
    text = spec.removeprefix("ssh://").rstrip("/") if spec.startswith("ssh://") else spec
    user, _, place = text.rpartition("@")
    match = re.fullmatch(r"\[(?P<literal>[^\]]+)\](?::(?P<port>\d+))?", place)
    if match:
        host, port = match["literal"], match["port"]
    elif place.count(":") == 1:
        host, _, port = place.partition(":")
    else:
        host, port = place, None
    if not host or set(host) & set("[]") or (port is not None and not _is_port(port)):
        raise ConfigProblem(f"found the jump host {quoted(spec)}, expected [user@]host[:port]")
    return user or None, host, int(port) if port else None


def _refuse_shell(user: str, *hosts: str) -> None:
    """Raise ConfigProblem for names that mean something to a shell, whoever gave them."""
    wrong = [host for host in hosts if _NO_HOST.search(host)]
    if _NO_USER.search(user) or wrong:
        kind, name = ("address", wrong[0]) if wrong else ("user", user)
        raise ConfigProblem(f"found {quoted(name)}, which is no {kind} for ssh", "correct it where it is written")


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 0 < int(text) < 65536


def expanded(text: str, tokens: Mapping[str, str]) -> str:
    """Return a path of the configuration with `~`, `%h` and `${VARIABLE}` replaced, as ssh_config(5) has them."""

    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise ConfigProblem(f"found {quoted(text)}, and the environment has no {name}", f"export {name}")
        return os.environ[name]

    path = os.path.expanduser(text)
    pieces = re.split(r"(\$\{\w+\})", path)
    if any("${" in piece for piece in pieces[::2]):
        raise ConfigProblem(f"found {quoted(text)}, expected the name of a variable in braces behind $")
    return "".join(
        re.sub(r"\$\{(\w+)\}", variable, piece) if piece.startswith("${") else percent_expanded(piece, tokens)
        for piece in pieces
    )


def percent_expanded(text: str, tokens: Mapping[str, str]) -> str:
    """Return a text with its `%` tokens replaced. Raises ConfigProblem for others."""

    def token(match: re.Match[str]) -> str:
        if match[1] not in tokens:
            raise ConfigProblem(f"found the unknown token %{match[1]} in {quoted(text)}")
        return tokens[match[1]]

    return re.sub(r"%(.?)", token, text, flags=re.DOTALL)


def split_paths(text: str, tokens: Mapping[str, str] | None = None) -> list[str]:
    """Return the paths of a list that `ssh -G` prints without quotes, where paths may have blanks.

    The longest run of words that names a file is one path; else a path goes on up to a word that begins as a path does.
    """
    words, paths = text.split(" "), []
    while words:
        count = next(
            (size for size in range(len(words), 1, -1) if os.path.exists(_plain(" ".join(words[:size]), tokens))),
            1 + next((at for at, word in enumerate(words[1:]) if not word or word[0] in "~/$%"), len(words) - 1),
        )
        paths.append(" ".join(words[:count]))
        words = words[count:]
    return [path for path in paths if path]


def argument(path: str) -> str:
    """Return a path as one argument of an option, whatever blanks and quotes it has."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def home() -> str:
    """Return the operator's home directory: $HOME."""
    return os.path.expanduser("~")


def local_user() -> str:
    """Return the name of the user that this process is."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return os.environ.get("USER") or str(os.getuid())


def _value(answer: Answer, keyword: str) -> str | None:
    values = answer.get(keyword, ())
    return None if not values or values[0].lower() in _NONE else values[0]


def _plain(path: str, tokens: Mapping[str, str] | None) -> str:
    try:
        return expanded(path, tokens) if tokens else os.path.expanduser(path)
    except ConfigProblem:
        return path


def _tokens(
    alias: str, hostname: str, port: int, user: str, key_alias: str | None, jump: str | None
) -> Mapping[str, str]:
    """Return the tokens of ssh_config(5), TOKENS, by their letters."""
    local = socket.gethostname()
    connection = hashlib.sha1(f"{local}{hostname}{port}{user}{jump or ''}".encode(), usedforsecurity=False).hexdigest()
    return {
        "%": "%", "C": connection, "d": home(), "h": hostname, "i": str(os.getuid()), "j": jump or "",
        "k": key_alias or alias, "L": local.partition(".")[0], "l": local, "n": alias, "p": str(port), "r": user,
        "u": local_user(),
    }  # fmt: skip


def _files(
    answer: Answer, keyword: str, default: Sequence[str], tokens: Mapping[str, str] | None = None
) -> tuple[Path, ...]:
    """Return the paths of a keyword; without `tokens` none are expanded, as ssh has it for GlobalKnownHostsFile."""
    values = answer.get(keyword)
    paths = split_paths(values[0], tokens) if values else default
    expand = functools.partial(expanded, tokens=tokens) if tokens is not None else os.path.expanduser
    return tuple(Path(expand(path)) for path in paths if path.lower() not in _NONE)


def _agent(answer: Answer, expand: functools.partial[str]) -> str | None:
    """Return the agent's socket: IdentityAgent may name it, name a variable, or be `none`."""
    values = answer.get("identityagent")
    name = values[0] if values else "SSH_AUTH_SOCK"
    if name.lower() in _NONE:
        return None
    if name == "SSH_AUTH_SOCK" or re.fullmatch(r"\$\w+", name):
        return os.environ.get(name.removeprefix("$")) or None
    return expand(name)
