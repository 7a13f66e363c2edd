"""When ssh is asked for a host's configuration, and when what it answered is remembered."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport import ssh_config_files
from flagscale_deploy.transport.route import destination_of, find_route
from flagscale_deploy.transport.ssh import SshConnection
from flagscale_deploy.transport.ssh_config import Resolver
from flagscale_deploy.transport.ssh_config_cache import SshConfigCache
from flagscale_deploy.transport.ssh_settings import (
    ConfigProblem,
    Destination,
    expanded,
    parse_jump,
    settings_of,
    split_paths,
)

SSH = """#!/bin/sh
# A stand-in for ssh: notes that it was asked, and answers with the name and user in capitals.
echo "$@" >> {log}
for name; do :; done
echo "host $name"
echo "user asked"
echo "hostname $name"
echo "port 2200"
"""
Make = Callable[[], Resolver]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return a function that makes the resolver of another run of the tool, with a stand-in for ssh."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("flagscale_deploy.transport.ssh_config.SYSTEM", str(tmp_path / "system"))
    (tmp_path / ".ssh").mkdir()
    program = tmp_path / "ssh"
    program.write_text(SSH.format(log=tmp_path / "log"))
    program.chmod(0o755)
    return lambda: Resolver(str(program), SshConfigCache(tmp_path / "cache"))


def asked(tmp_path: Path) -> int:
    log = tmp_path / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def configure(tmp_path: Path, text: str, name: str = "config") -> None:
    (tmp_path / ".ssh" / name).write_text(text)


def test_without_files_ssh_is_not_asked(make: Make, tmp_path: Path) -> None:
    settings = make().resolve(Destination("gpu01", user="me", port=2222, identity_file="~/k", proxy_jump="a,b"))
    assert (settings.hostname, settings.user, settings.port, settings.jumps) == ("gpu01", "me", 2222, ("a", "b"))
    assert settings.identity_files == (str(tmp_path / "k"),)
    assert settings.user_known_hosts[0] == tmp_path / ".ssh/known_hosts"
    assert asked(tmp_path) == 0


def test_nothing_that_matters_in_the_files_is_nothing_to_ask(make: Make, tmp_path: Path) -> None:
    configure(tmp_path, "Host *\n  ServerAliveInterval 5\n  SendEnv LANG\n  HashKnownHosts yes\nInclude parts/*\n")
    (tmp_path / "system").write_text("Host *\n  GSSAPIAuthentication yes\n")
    assert make().resolve(Destination("gpu01")).port == 22
    assert asked(tmp_path) == 0


@pytest.mark.parametrize("text", ["Port 2200\n", "NewKeyword yes\n", "Match final all\nUser x\n"])
def test_what_matters_or_is_not_known_is_asked_once(make: Make, tmp_path: Path, text: str) -> None:
    configure(tmp_path, text)
    for _ in range(3):
        assert make().resolve(Destination("gpu01")).user == "asked"
    assert asked(tmp_path) == 1


def test_options_of_the_inventory_are_asked_for(make: Make, tmp_path: Path) -> None:
    host = Host("gpu01", "gpu01", ssh_options="-o ProxyCommand=none -F mine")
    assert destination_of(host).config_file == "mine"
    (tmp_path / "mine").write_text("# nothing\n")
    make().resolve(Destination("gpu01", options=("-o", "X=y"), config_file=str(tmp_path / "mine")))
    assert (tmp_path / "log").read_text() == f"-F {tmp_path}/mine -G -o X=y -- gpu01\n"
    with pytest.raises(ConfigProblem, match=r"mine.* cannot be read"):
        make().resolve(Destination("gpu01", config_file=str(tmp_path / "none" / "mine")))


def test_a_change_of_any_file_is_noticed(make: Make, tmp_path: Path) -> None:
    configure(tmp_path, "Include part*\nPort 2200\n")
    configure(tmp_path, "User a\n", "part1")
    changes: list[Callable[[], object]] = [
        lambda: configure(tmp_path, "User b\n", "part1"),
        lambda: configure(tmp_path, "User c\n", "part2"),
        (tmp_path / ".ssh/part1").unlink,
        lambda: (tmp_path / "system").write_text("User d\n"),
        lambda: configure(tmp_path, "Port 2201\n"),
    ]
    for number, change in enumerate(changes, start=1):
        make().resolve(Destination("gpu01"))
        assert asked(tmp_path) == number
        change()
    make().resolve(Destination("gpu01"))
    assert asked(tmp_path) == 6


@pytest.mark.parametrize(
    "text",
    ["Match exec true\nUser x\n", 'Match !exec="false"\n', "Match localnetwork 10.0.0.0/8\nPort 1\n",
     "CanonicalizeHostname yes\nPort 1\n", "Include ${X}/y\nPort 1\n", "User ${X}\n"],
)  # fmt: skip
def test_what_depends_on_more_than_files_is_asked_each_time(make: Make, tmp_path: Path, text: str) -> None:
    configure(tmp_path, text)
    if "Port" not in text and "User" not in text:
        configure(tmp_path, text + "Port 1\n")
    resolver = make()
    for name in ("gpu01", "gpu02", "gpu03"):
        resolver.expect(Destination(name))
    for _ in range(2):
        resolver.resolve(Destination("gpu01"))
    assert asked(tmp_path) == 2


def test_a_thousand_hosts_are_asked_for_together(make: Make, tmp_path: Path) -> None:
    configure(tmp_path, "Host gpu*\n  User a\nHost gpu7 gpu8\n  Port 1\nMatch host gpu9\n  Port 2\n")
    destinations = [Destination(f"gpu{at}") for at in range(1000)]
    resolver = make()
    for destination in destinations:
        resolver.expect(destination)
    began = time.process_time()
    with ThreadPoolExecutor(16) as pool:
        settings = list(pool.map(resolver.resolve, destinations))
    assert time.process_time() - began < 30
    assert [one.hostname for one in settings] == [destination.alias for destination in destinations]
    assert asked(tmp_path) == 3


def test_hosts_with_blocks_of_their_own_are_asked_for_once(make: Make, tmp_path: Path) -> None:
    program = tmp_path / "ssh"
    program.write_text(program.read_text().replace("hostname $name", "hostname 10.0.${name#gpu}"))
    configure(tmp_path, "".join(f"Host gpu{at}\n  HostName 10.0.{at}\n  Port 2200\n" for at in range(1000)))
    resolver = make()
    assert [resolver.resolve(Destination(f"gpu{at}")).hostname for at in (3, 999)] == ["10.0.3", "10.0.999"]
    assert asked(tmp_path) == 1


def test_the_cache_is_the_users_own_and_a_damaged_one_does_no_harm(make: Make, tmp_path: Path) -> None:
    configure(tmp_path, "Port 2200\n")
    make().resolve(Destination("gpu01"))
    (file,) = (tmp_path / "cache").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    content = file.read_text()
    for damaged, times in ((content[:-9], 2), ("[]\n{}\n\0", 3), ('{"key": 1, "answer": {"port": 22}}\n', 4)):
        file.write_text(damaged)
        assert make().resolve(Destination("gpu01")).user == "asked"
        assert asked(tmp_path) == times
    file.write_text(content)
    file.chmod(0o666)
    make().resolve(Destination("gpu01"))
    assert asked(tmp_path) == 5
    file.unlink()
    os.mkfifo(file)  # another user's, where $XDG_CACHE_HOME is a shared place
    resolving = threading.Thread(target=lambda: make().resolve(Destination("gpu01")), daemon=True)
    resolving.start()
    resolving.join(60)
    assert not resolving.is_alive()
    assert asked(tmp_path) == 6


def test_a_connection_that_is_not_opened_runs_nothing_of_the_configuration(make: Make, tmp_path: Path) -> None:
    configure(tmp_path, f"Match exec 'touch {tmp_path}/ran'\n  Port 1\n")
    connection = SshConnection(Host("gpu01", "gpu01"), 5.0, make())
    connection.close()
    assert asked(tmp_path) == 0


def test_a_refusal_of_ssh_is_told_and_not_remembered(make: Make, tmp_path: Path) -> None:
    configure(tmp_path, "Port 2200\n")
    program = tmp_path / "ssh"
    before = program.read_text()
    program.write_text(
        "#!/bin/sh\necho 'OpenSSH' >&2\necho 'config: line 3: Bad configuration option: prot' >&2\nexit 255\n"
    )
    with pytest.raises(ConfigProblem, match="gpu01: config: line 3: Bad configuration option: prot"):
        make().resolve(Destination("gpu01"))
    program.write_text(before)
    assert make().resolve(Destination("gpu01")).user == "asked"


def test_a_refusal_costs_each_host_one_question(make: Make, tmp_path: Path) -> None:
    configure(tmp_path, "".join(f"Host gpu{at}\n  Port {at}\n" for at in range(20)))
    program = tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\necho OpenSSH\necho x >> {tmp_path}/log\nexit 255\n")
    resolver = make()
    for at in range(20):
        resolver.expect(Destination(f"gpu{at}"))
    for at in range(20):
        with pytest.raises(ConfigProblem):
            resolver.resolve(Destination(f"gpu{at}"))
    assert asked(tmp_path) <= 20 + 19 + 1  # together, then each, and once for the version


def test_another_program_called_ssh_is_not_relied_on(make: Make, tmp_path: Path) -> None:
    configure(tmp_path, "Host gpu01\n  Port 2200\n")
    (tmp_path / "ssh").write_text("#!/bin/sh\necho 'Dropbear SSH client v2022.83' >&2\nexit 1\n")
    assert make().resolve(Destination("gpu01")).port == 2200


def test_home_is_what_the_environment_says(make: Make, tmp_path: Path) -> None:
    configure(tmp_path, "Include part\nIdentityFile ~/k\n")
    configure(tmp_path, "Port 2200\n", "part")
    source = make().source(None)
    (flag, top) = source.file_words
    assert flag == "-F"
    texts = [path.read_text() for path in Path(top).parent.iterdir()]
    assert any(f"IdentityFile {tmp_path}/k" in text for text in texts)
    assert not any("Include part" in text for text in texts)
    assert stat.S_IMODE(os.stat(Path(top).parent).st_mode) == 0o700


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("bastion", (None, "bastion", None)),
        ("me@bastion:2222", ("me", "bastion", 2222)),
        ("ssh://me@bastion:22/", ("me", "bastion", 22)),
        ("[::1]", (None, "::1", None)),
        ("me@[fe80::1]:2222", ("me", "fe80::1", 2222)),
        ("::1", (None, "::1", None)),
        ("me@corp@bastion", ("me@corp", "bastion", None)),
    ],
)
def test_forms_of_a_jump_host(spec: str, parts: tuple[str | None, str, int | None]) -> None:
    assert parse_jump(spec) == parts


@pytest.mark.parametrize("spec", ["", "me@", "bastion:ssh", "[::1]:x"])
def test_what_is_no_jump_host(spec: str) -> None:
    with pytest.raises(ConfigProblem, match="expected \\[user@\\]host"):
        parse_jump(spec)


@pytest.mark.parametrize(
    "words", [("x$(id)", "h"), ("x;id", "h"), ("-x", "h"), ("x\\", "h"), ("x$A", "h"), ("x -y", "h"), ("", "h`id`"),
              ("", "h$A"), ("", "-h"), ("", "h i"), ("", "h\ni"), ("", "h|id")],
)  # fmt: skip
def test_no_name_is_a_command_of_a_proxy(words: tuple[str, str]) -> None:
    """OpenSSH refuses them itself; where another program reads the configuration, nobody else does."""
    user, host = words
    answer = {"user": [user] if user else [], "hostname": [host], "proxycommand": ["nc %r %h"]}
    with pytest.raises(ConfigProblem, match=r"which is no (user|address) for ssh"):
        settings_of(Destination("gpu01"), answer)
    if host != "h":
        with pytest.raises(ConfigProblem, match="which is no"):
            settings_of(Destination(host), {})


@pytest.mark.parametrize("user", ["me", "me@corp", "CORP\\me", "host$", "first.last", "a b", "ü"])
def test_names_that_are_some(user: str) -> None:
    for host in ("gpu01", "10.0.0.1", "fe80::1%eth0", "a_b.example.com"):
        assert settings_of(Destination(host), {"user": [user]}).user == user


def test_tokens_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PLACE", "100%h")
    tokens = {"%": "%", "h": "host", "d": "/home/me"}
    assert expanded("~/%h/${PLACE}/%%h", tokens) == "/home/me/host/100%h/%h"
    with pytest.raises(ConfigProblem, match="unknown token %x"):
        expanded("%x", tokens)


def test_lists_of_paths_with_blanks(tmp_path: Path) -> None:
    (tmp_path / "my hosts").write_text("")
    both = f"{tmp_path}/my hosts {tmp_path}/other"
    assert split_paths(both) == [f"{tmp_path}/my hosts", f"{tmp_path}/other"]
    assert split_paths("~/a b ~/c") == ["~/a b", "~/c"]
    assert split_paths("/a /b") == ["/a", "/b"]


def test_names_of_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("OTHER", "/run/other")
    names = {
        None: "/run/agent",
        "none": None,
        "SSH_AUTH_SOCK": "/run/agent",
        "$OTHER": "/run/other",
        "/x/%h": "/x/gpu01",
    }
    for name, path in names.items():
        answer = {"identityagent": [name]} if name else {}
        assert settings_of(Destination("gpu01"), answer).identity_agent == path


def test_a_way_that_goes_round_in_circles_is_refused(make: Make) -> None:
    with pytest.raises(ConfigProblem, match="through jump host gpu01 twice"):
        find_route(Host("gpu01", "gpu01", proxy_jump="gpu01"), make())


def test_harmless_and_relevant_keywords_are_told_apart() -> None:
    assert not ssh_config_files.HARMLESS & ssh_config_files.RELEVANT
