"""What OpenSSH's own tests try of Include, ProxyJump and tokens, and what lies near: ours agrees with `ssh -G`.

Each row is a configuration and names. It is resolved by asking ssh (from a file of `-F`, and from that of a home
directory that is not ssh's), and by the reader that takes ssh's place where there is none. All agree, but for
`READER_DIFFERS`. The texts are our own; the situations are those of `regress/cfginclude.sh` and `regress/percent.sh`.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.transport.ssh_config import Resolver
from flagscale_deploy.transport.ssh_config_cache import SshConfigCache
from flagscale_deploy.transport.ssh_settings import Answer, ConfigProblem, Destination, Settings, parse_jump
from tests.component.transport.oracle import ask_ssh

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="compares with ssh, which is not here")


@dataclass(frozen=True)
class Row:
    """Files of a folder by their names, `config` the first; `<dir>` in them is the folder. Names to resolve."""

    files: Mapping[str, str]
    names: tuple[str, ...] = ("a",)
    given: Mapping[str, Any] = field(default_factory=dict)
    """What else the command line gives, by the fields of Destination."""

    def destinations(self, config: str | None) -> list[Destination]:
        return [Destination(name, config_file=config, **self.given) for name in self.names]


def one(text: str, *names: str, **given: Any) -> Row:
    """Return a row of one file."""
    return Row({"config": text}, names or ("a",), given)


OUTER = """
Match host red
  HostName outer-red
Match host green # here
  HostName outer-green
  Include <dir>/part.*
Match host blue
  Include <dir>/part.*
  HostName outer-blue
Match host black
  Include <dir>/part.*  # there
Host one
  HostName outer-one
Host two
  HostName outer-two
  Include <dir>/part.*
Host three
  Include <dir>/part.*
  HostName outer-three
Host four
  Include <dir>/part.*
"""
INNER = """
Match host red
  HostName {0}-red
Match host green
  HostName {0}-green
Match host blue
  HostName {0}-blue
Host one
  HostName {0}-one
Host two
  HostName {0}-two
Host three
  HostName {0}-three
"""
PARTS = {
    "part.0": "Match host nobody\n",
    "part.1": INNER.format("first"),
    "part.2": INNER.format("second") + "Match all\n  HostName last\n",
}
COLOURS = ("red", "green", "blue", "black", "one", "two", "three", "four", "other")

INCLUDE = {
    "blocks that include files with blocks": Row({"config": OUTER} | PARTS, COLOURS),
    "an included file with a mistake": Row(
        {"config": OUTER} | PARTS | {"part.3": "HostName x\n  Junk\n"}, ("red", "x")
    ),
    "a mistake in a file that a block includes": Row(
        {"config": "Host b\n  Include <dir>/part\nHost *\n  Port 3\n", "part": "Junk yes\n"}, ("a", "b")
    ),
    "no file of a pattern": one("Include <dir>/none.*\nHostName h\n"),
    "no file of a name": one("Include <dir>/none\nHostName h\n"),
    "a Match in an included file ends with it": Row({"config": "Include <dir>/p\nHostName h\n", "p": "Match host x\n"}),
    "a Host in an included file ends with it": Row({"config": "Include <dir>/p\nHostName h\n", "p": "Host x\n"}),
    "a file that includes itself": Row({"config": "Include <dir>/config\nPort 3\n"}),
    "files that include each other": Row(
        {"config": "Include <dir>/p\nPort 3\n", "p": "Include <dir>/q\n", "q": "Include <dir>/p\nUser u\n"}
    ),
    "files in the order of their names": Row(
        {"config": "Include <dir>/p*\n", "p2": "Port 2\n", "p10": "Port 10\n", "p1": "Port 1\n"}
    ),
    "several words": Row({"config": "Include <dir>/q <dir>/p\n", "p": "Port 1\n", "q": "Port 2\n"}),
    "a quoted name with a blank": Row({"config": 'Include "<dir>/a b"\n', "a b": "Port 7\n"}),
    "an equals sign": Row({"config": "Include=<dir>/p\n", "p": "Port 7\n"}),
    "a keyword in capitals": Row({"config": "INCLUDE <dir>/p\n", "p": "PORT 7\n"}),
    "no word": one("Include\nPort 3\n"),
    "the first value counts": Row({"config": "Port 1\nInclude <dir>/p\nUser u\n", "p": "Port 2\nUser v\n"}),
    "three deep": Row(
        {
            "config": "Host a b\n  Include <dir>/p\n  Port 4\n",
            "p": "Host a c\n  Include <dir>/q\n  User p\n",
            "q": "Host *\n  HostName %h.q\nHost b\n  Port 9\n",
        },
        ("a", "b", "c"),
    ),
    "a block that names no host": Row(
        {"config": "Host *\n  Include <dir>/p\n", "p": "User in\n\nHost b\n  Port 2\n"}, ("a", "b")
    ),
    "a Match that a HostName would end": Row(
        {
            "config": "Match host a\n  HostName h\n  Include <dir>/p\n  Port 3\n",
            "p": "User in\nMatch host h\n  Port 2\n",
        }
    ),
    "a negated pattern before an Include": Row(
        {"config": "Host * !b\n  Include <dir>/p\n", "p": "Port 2\nHost b\n  User u\n"}, ("a", "b")
    ),
    "keys of several files": Row(
        {"config": "IdentityFile /k1\nHost a\n  Include <dir>/p\nIdentityFile /k3\n", "p": "IdentityFile /k2\n"},
        ("a", "b"),
    ),
    "Match final in an included file": Row(
        {"config": "Include <dir>/p\nHostName h\n", "p": "Match final host h\n  Port 2\n"}
    ),
    "Match final around an Include": Row(
        {"config": "Match final\n  Include <dir>/p\nHost *\n  User u\n", "p": "User v\nPort 2\n"}
    ),
    "Match user around an Include": Row(
        {"config": "User u\nMatch user u\n  Include <dir>/p\n", "p": "Port 2\n"}, ("a", "v@a")
    ),
}

PROXY_JUMP = {
    "one": one("ProxyJump j\n"),
    "several": one("ProxyJump u@j:22,k,[::1]:2200\n"),
    "an address": one("ProxyJump ssh://u@j:2200\n"),
    "none": one("ProxyJump none\n"),
    "none in other letters": one("ProxyJump NONE\n"),
    "none for one host": one("Host a\n  ProxyJump none\nHost *\n  ProxyJump j\n", "a", "b"),
    "none before a command": one("ProxyJump none\nProxyCommand nc %h %p\n"),
    "a command before it": one("ProxyCommand nc %h %p\nProxyJump j\n"),
    "a command after it": one("ProxyJump j\nProxyCommand nc %h %p\n"),
    "no command before it": one("ProxyCommand none\nProxyJump j\n"),
    "of the command line, before a command": one("ProxyCommand nc %h %p\n", proxy_jump="j,k"),
    "none of the command line": one("ProxyJump j\n", proxy_jump="none"),
    "a command of the command line": one("ProxyJump j\n", options=("-o", "ProxyCommand=nc %h %p")),
    "with a comment": one("ProxyJump j # on the way\n"),
    "with an equals sign": one("ProxyJump=j\n"),
    "in quotes": one('ProxyJump "j"\n'),
    "through itself": one("ProxyJump a\n"),
    "not through itself": one("Host * !j\n  ProxyJump j\n", "a", "j"),
    "a port that is none": one("ProxyJump j:0\n"),
    "a port that is too large": one("ProxyJump j:70000\n"),
    "a port in letters": one("ProxyJump j:ssh\n"),
    "no name": one("ProxyJump u@\n"),
    "an empty hop": one("ProxyJump j,,k\n"),
    "a blank": one("ProxyJump j, k\n"),
    "an address without brackets": one("ProxyJump fe80::1\n"),
    "a user with @": one("ProxyJump u@x@j\n"),
    "an empty value": one("ProxyJump\n"),
    "two lines": one("ProxyJump j\nProxyJump k\n"),
    "a token": one("ProxyJump %r@j\n"),
}

NAMES_AND_PORTS = {
    "HostName with its own name": one("HostName %h.example\n", "a", "B"),
    "HostName with a percent sign": one("HostName %%h%%\n"),
    "HostName with another token": one("HostName %n.example\n"),
    "HostName of an address": one("Host 10.*\n  HostName 1%h\n", "10.0.0.1"),
    "User in the name": one("User u\n", "v@a"),
    "User of the command line": one("User u\nPort 3\n", user="w", port=4),
    "the known hosts": one('UserKnownHostsFile /k/%h_%p "/k/b c" /k/%%\nGlobalKnownHostsFile /g\nPort 7\n'),
    "no known hosts": one("UserKnownHostsFile none\nGlobalKnownHostsFile none\n"),
    "the alias of a key": one("HostKeyAlias Alias\nIdentityFile /k/%k\n"),
    "keys with tokens": one("IdentityFile /k/%n_%r_%h_%p\nCertificateFile /c/%i%%\nUser u\nHostName h\n"),
    "an agent with a percent sign": one("IdentityAgent /a/%%/%n%%n\n"),
    "an agent of a variable": one("IdentityAgent $SOMEBODY\n"),
    "revoked keys": one("RevokedHostKeys /r/%h\n"),
    "a command's tokens": one("ProxyCommand nc %h %p %r %n %%\nHostName h\nPort 7\nUser u\n"),
}

ROWS = {
    f"{title}: {name}": row
    for title, rows in (("include", INCLUDE), ("jump", PROXY_JUMP), ("name", NAMES_AND_PORTS))
    for name, row in rows.items()
}

READER_DIFFERS = {
    "include: an included file with a mistake": "unknown keywords are passed over: a newer ssh may have them",
    "include: a mistake in a file that a block includes": "likewise",
    "include: no word": "likewise",
    "include: a file that includes itself": "a loop is read 16 deep; ssh refuses it",
    "include: files that include each other": "likewise",
    "jump: through itself": "the way to the host is refused, not its configuration",
    "jump: in quotes": "ssh takes the quotes for a part of the name, which then is none",
    "jump: a port in letters": "names of services are no ports",
    "jump: an address without brackets": "an address with colons and without a port needs no brackets",
}
"""Rows for which the reader that takes ssh's place has another answer, and why that is left so."""

TOKENS = (
    *("%%", "%C", "%d", "%h", "%i", "%k", "%L", "%l", "%n", "%p", "%r", "%u"),
    *("%%/%C/%d/%h/%i/%k/%L/%l/%n/%p/%r/%u", "%%h", "%h%%", "x%nx", "%T", "%z", "%", "a%", "% h", "%1", "%%%"),
    *("~", "~/k", "~root/k", "a~/k", "${SOME}", "${SOME}/%h", "${NONE}", "$SOME", "${SOME", "%${SOME}"),
)
"""Texts to expand. `%j`, and the jump host in `%C`, are ours and those of newer versions of ssh: not compared."""


def ask(config: Path | str, destination: Destination) -> Answer | None:
    """Return what ssh prints for a destination; None where it refuses."""
    return ask_ssh(config, destination)[0]


def write(row: Row, folder: Path, prefix: str) -> str:
    """Write the files of a row with a prefix for `<dir>/`, and return the path of the first."""
    folder.mkdir(mode=0o700, parents=True)
    for name, text in row.files.items():
        (folder / name).write_text(text.replace("<dir>/", prefix))
        (folder / name).chmod(0o600)
    return str(folder / "config")


def resolve(program: str | None, folder: Path, destination: Destination) -> Settings | None:
    """Return our settings, None where we refuse; jump hosts and default keys in one form of several."""
    try:
        ours = Resolver(program, SshConfigCache(folder / "cache")).resolve(destination)
        jumps = tuple(str(parse_jump(hop)) for hop in ours.jumps)
    except ConfigProblem:
        return None
    keys = tuple(key for key in ours.identity_files if not key.endswith(("/id_dsa", "/id_xmss")))
    return replace(ours, jumps=jumps, identity_files=keys)


def shown(settings: Settings | None) -> tuple[str, ...]:
    """Return what `ssh -G` shows of settings, in its words."""
    if settings is None:
        return ("refused",)
    files = (" ".join(map(str, paths)) for paths in (settings.user_known_hosts, settings.global_known_hosts))
    return (settings.hostname, settings.user, str(settings.port), settings.host_key_alias or "", *files)


def shown_by_ssh(answer: Answer | None) -> tuple[str, ...]:
    if answer is None:
        return ("refused",)
    keywords = ("hostname", "user", "port", "hostkeyalias", "userknownhostsfile", "globalknownhostsfile")
    return tuple(" ".join(answer.get(keyword, [""])).replace("none", "") for keyword in keywords)


@pytest.mark.parametrize("name", ROWS)
def test_a_configuration_means_what_it_means_to_ssh(name: str, tmp_path: Path) -> None:
    config = write(ROWS[name], tmp_path / "elsewhere", f"{tmp_path}/elsewhere/")
    agree = True
    for destination in ROWS[name].destinations(config):
        ours = resolve(shutil.which("ssh"), tmp_path, destination)
        assert shown(ours) == shown_by_ssh(ask(config, destination))
        reader = resolve(None, tmp_path, destination)
        agree = agree and reader == ours
        assert agree or name in READER_DIFFERS, f"{destination.alias}: {reader}, not {ours}"
    assert agree == (name not in READER_DIFFERS), "it agrees now: take it out of the list"


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("include")])
def test_names_of_files_are_relative_to_the_folder_of_the_home_directory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(ROWS[name], tmp_path / ".ssh", "")
    config = write(ROWS[name], tmp_path / "elsewhere", f"{tmp_path}/elsewhere/")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("flagscale_deploy.transport.ssh_config.SYSTEM", str(tmp_path / "none"))
    for destination in ROWS[name].destinations(None):
        ours = shown(resolve(shutil.which("ssh"), tmp_path, destination))
        assert ours[:4] == shown_by_ssh(ask(config, destination))[:4]


TOKENS_OF = "HostName h.example\nPort 2222\nUser u\nHostKeyAlias Alias\n"


@pytest.mark.parametrize("text", TOKENS)
def test_a_text_is_expanded_as_ssh_does(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME", "value")
    monkeypatch.delenv("NONE", raising=False)
    agent = write(one(f'{TOKENS_OF}IdentityAgent "{text}"\n'), tmp_path / "agent", "")
    key = write(one(f'{TOKENS_OF}IdentityFile "{text}"\n'), tmp_path / "key", "")
    answer = ask(agent, Destination("a"))  # the only path of ours that `ssh -G` prints expanded
    expected = None if answer is None else answer["identityagent"][0].rstrip("/")
    for program in (shutil.which("ssh"), None):
        ours = resolve(program, tmp_path, Destination("a", config_file=key))
        assert (ours and ours.identity_files[0].rstrip("/")) == expected
        ours = resolve(program, tmp_path, Destination("a", config_file=agent))
        socket = "value" if text == "$SOME" else expected  # the name of a variable
        assert (ours and (ours.identity_agent or "").rstrip("/")) == socket


@pytest.mark.parametrize("text", ["%% %h %n %p %r", "'%h' \"%n\"", "%%h", "%d", "%C", "%", "%%%"])
def test_a_proxy_command_is_expanded_as_ssh_does(text: str, tmp_path: Path) -> None:
    config = write(one(f"{TOKENS_OF}ProxyCommand echo {text} | tee {tmp_path}/printed\n"), tmp_path / "files", "")
    printed = tmp_path / "printed"
    subprocess.run(["ssh", "-F", config, "a"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    expected = printed.read_text() if printed.exists() else None
    for program in (shutil.which("ssh"), None):
        ours = resolve(program, tmp_path, Destination("a", config_file=config))
        assert (ours is None) == (expected is None)
        if ours is not None and ours.proxy_command is not None:
            printed.unlink()
            subprocess.run(["sh", "-c", ours.proxy_command], stdout=subprocess.DEVNULL, timeout=60, check=True)
            assert printed.read_text() == expected
