"""What people have in their SSH configurations: where ssh goes, we go, and where it fails, we say why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.component.transport.ssh_world import Case, Reply, World, obstacle

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "-")

ONE = [("127.0.0.11", 22, "")]
BOTH = [("127.0.0.11", 22, ""), ("127.0.0.11", 2222, "")]
JUMP = [("127.0.0.11", 22, ""), ("127.0.0.20", 22, "")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as running:
        yield running


def config(text: str, **files: str) -> dict[str, str]:
    return {".ssh/config": text} | files


CONNECTS = {
    "include of relative paths": Case(
        config("Include config.d/*\nHost *\n  ServerAliveInterval 20\n")
        | {".ssh/config.d/lab": "Host node\n  HostName 127.0.0.11\n  Port 2222\n  User root\n"},
        "hosts: [node]\n",
        BOTH,
        host="node",
    ),
    "include in the home": Case(
        config("Include ~/.ssh/extra\n") | {".ssh/extra": "Host *\n  Port 2222\n"}, servers=BOTH
    ),
    "include within a block": Case(
        config("Host gpu02\n  Include other\nHost gpu01\n  Port 2222\n") | {".ssh/other": "Port 1\n"}, servers=BOTH
    ),
    "trailing comments": Case(
        config("Host node\n  HostName 127.0.0.11 # the first\n  Port 2222 # not 22\n  User root\n"),
        "hosts: [node]\n",
        BOTH,
        host="node",
    ),
    "an apostrophe in a comment": Case(config("# it's ours\nHost gpu01 # don't\n  Port 2222\n"), servers=BOTH),
    "Latin-1 in a comment": Case(config("# B\xfcro\nHost gpu01\n  Port 2222\n"), servers=BOTH),
    "a host key alias": Case(
        config("Host node\n  HostName 127.0.0.11\n  HostKeyAlias Cluster-Node\n  Port 2222\n")
        | {".ssh/known_hosts": "cluster-node {host}\n"},
        "hosts: [node]\n",
        BOTH,
        host="node",
    ),
    "a known_hosts file with a blank": Case(
        config('Host *\n  UserKnownHostsFile "~/my hosts/keys"\n')
        | {"my hosts/keys": "gpu01 {host}\n", ".ssh/known_hosts": ""},
        servers=ONE,
    ),
    "several known_hosts files": Case(
        config("UserKnownHostsFile ~/.ssh/none ~/second\n") | {"second": "gpu01 {host}\n", ".ssh/known_hosts": ""},
        servers=ONE,
    ),
    "the global known_hosts file": Case(
        config("GlobalKnownHostsFile ~/global\nUserKnownHostsFile none\n")
        | {"global": "gpu01 {host}\n", ".ssh/known_hosts": ""},
        servers=ONE,
    ),
    "the second of the user's known_hosts": Case(
        {".ssh/known_hosts2": "gpu01 {host}\n", ".ssh/known_hosts": ""}, servers=ONE
    ),
    "a known name without its port": Case(
        config("Host gpu01\n  Port 2222\n") | {".ssh/known_hosts": "gpu01 {host}\n"}, servers=BOTH
    ),
    "a host certificate": Case(
        {".ssh/known_hosts": "@cert-authority *,127.0.0.* {ca}\n"}, servers=[("127.0.0.11", 22, "{certificate}gpu01")]
    ),
    "a host certificate on another port": Case(
        config("Port 2222\n") | {".ssh/known_hosts": "@cert-authority gpu* {ca}\n"},
        servers=[("127.0.0.11", 2222, "{certificate}gpu01")],
    ),
    "a certified key that is known itself": Case(
        {".ssh/known_hosts": "gpu01 {host}\n"}, servers=[("127.0.0.11", 22, "{certificate}other")]
    ),
    "a key that is known, of a certificate for another": Case(
        {".ssh/known_hosts": "@cert-authority * {ca}\ngpu01 {host}\n"},
        servers=[("127.0.0.11", 22, "{certificate}other")],
    ),
    "the name in a ProxyCommand": Case(config("Host gpu01\n  ProxyCommand ssh -W %n:%p bastion\n"), servers=JUMP),
    "a ProxyCommand for a shell": Case(
        config("Host gpu01\n  ProxyCommand sh -c 'test %r = root && exec ssh -q -W \"[%h]:%p\" bastion' 2>/dev/null\n"),
        servers=JUMP,
    ),
    "a jump host as URL": Case(config("Host gpu01\n  ProxyJump ssh://root@bastion:22\n"), servers=JUMP),
    "canonical names without domains": Case(config("CanonicalizeHostname yes\n"), servers=ONE),
    "Match host=": Case(config("Match host=gpu01\n  Port 2222\n"), servers=BOTH),
    "Match originalhost, user": Case(config("Match originalhost gpu* user root\n  Port 2222\n"), servers=BOTH),
    "Match exec": Case(config('Match exec "test %h = gpu01"\n  Port 2222\n'), servers=BOTH),
    "Match final": Case(config("Match final host gpu01\n  Port 2222\n"), servers=BOTH),
    "a forwarded agent's path": Case(config("Host gpu01\n  ForwardAgent $SSH_AUTH_SOCK\n"), servers=ONE),
    "ForwardAgent Yes": Case(config("ForwardAgent Yes\nCompression Yes\n"), servers=ONE),
    "a port by its service": Case(config("Host gpu01\n  Port ssh\n"), servers=ONE),
    "two jump hosts in order": Case(
        config("Host gpu02\n  ProxyJump s21,s22\n"),
        "hosts: [gpu02]\n",
        [("127.0.0.21", 22, "PermitOpen s22:22"), ("127.0.0.22", 22, "PermitOpen gpu02:22"), ("127.0.0.12", 22, "")],
        host="gpu02",
    ),
    "a jump host of a jump host": Case(
        config("Host gpu02\n  ProxyJump s22\nHost s22\n  ProxyJump s21\n"),
        "hosts: [gpu02]\n",
        [("127.0.0.21", 22, "PermitOpen s22:22"), ("127.0.0.22", 22, "PermitOpen gpu02:22"), ("127.0.0.12", 22, "")],
        host="gpu02",
    ),
    "no jump host for this one": Case(
        config("Host gpu01\n  ProxyJump none\nHost * !s21\n  ProxyJump s21\n"),
        servers=[*ONE, ("127.0.0.21", 22, "AllowTcpForwarding no")],
    ),
    "an IPv6 jump host": Case(
        config("Host gpu01\n  ProxyJump [::1]\n"),
        "hosts: [{name: gpu01, proxy_jump: '[::1]'}]\n",
        [*ONE, ("::1", 22, "")],
    ),
    "a jump host's own settings": Case(
        config("Host way\n  HostName bastion\n  Port 2200\n  HostKeyAlias bastion\nHost gpu01\n  ProxyJump way\n"),
        servers=[*ONE, ("127.0.0.20", 2200, "")],
    ),
    "an address family": Case(config("AddressFamily inet\nBindAddress 127.0.0.1\n"), servers=ONE),
    "a variable in an identity file": Case(
        config("IdentityFile ${HOME}/keys/op\n") | {"keys/op": "key:op"}, servers=ONE, default_key=False
    ),
    "tokens in an identity file": Case(
        config("Host node\n  HostName 127.0.0.11\n  IdentityFile %d/keys/%n_%r_%p_%h\n")
        | {"keys/node_root_22_127.0.0.11": "key:op"},
        "hosts: [node]\n",
        ONE,
        default_key=False,
        host="node",
    ),
    "a public identity file, and many keys in the agent": Case(
        config("IdentityFile ~/keys/op.pub\nIdentitiesOnly yes\n") | {"keys/op.pub": "key:op.pub"},
        servers=ONE,
        agent=[*(f"many{number}" for number in range(1, 8)), "op"],
        default_key=False,
    ),
    "an agent that the configuration names": Case(
        config("IdentityAgent ~/agent.sock\n"), servers=ONE, agent=["op"], agent_env=False, default_key=False
    ),
    "an agent that a variable names": Case(
        config("IdentityAgent $MY_AGENT\n"),
        servers=ONE,
        agent=["op"],
        agent_env=False,
        default_key=False,
        env={"MY_AGENT": "/root/agent.sock"},
    ),
    "PKCS#8": Case({".ssh/id_rsa": "key:pkcs8"}, servers=ONE, default_key=False),
    "a missing identity file": Case(
        config("IdentityFile ~/.ssh/not_there\n"), servers=ONE, agent=["op"], default_key=False
    ),
    "the third identity file": Case(
        config("IdentityFile ~/.ssh/id_rsa\nIdentityFile ~/.ssh/id_ecdsa\nIdentityFile ~/.ssh/id_ed25519\n"),
        servers=ONE,
    ),
    "no identity file": Case(config("IdentityFile none\n"), servers=ONE, agent=["op"], default_key=False),
    "the inventory's key with a passphrase, in the agent": Case(
        {"keys/k": "key:enc"},
        "hosts: [gpu01]\ndefaults: {identity_file: ~/keys/k}\n",
        ONE,
        agent=["op"],
        default_key=False,
    ),
    "the inventory's public key": Case(
        {"keys/op.pub": "key:op.pub"},
        "hosts: [gpu01]\ndefaults: {identity_file: ~/keys/op.pub}\n",
        ONE,
        agent=["op"],
        default_key=False,
    ),
    "a user certificate beside its key": Case(
        {".ssh/id_ed25519-cert.pub": "key:usercert"}, servers=[("127.0.0.11", 22, "{userca}")]
    ),
    "a user certificate named in the configuration, its key in the agent": Case(
        config("CertificateFile ~/cert\n") | {"cert": "key:usercert"},
        servers=[("127.0.0.11", 22, "{userca}")],
        agent=["op"],
        default_key=False,
    ),
    "two keys are demanded": Case(
        config("IdentityFile ~/.ssh/id_ed25519\nIdentityFile ~/.ssh/second\n") | {".ssh/second": "key:pkcs8"},
        servers=[("127.0.0.11", 22, "AuthenticationMethods publickey,publickey")],
    ),
    "curve25519 by its RFC's name alone": Case(servers=[("127.0.0.11", 22, "KexAlgorithms curve25519-sha256")]),
}


@pytest.mark.parametrize("name", CONNECTS)
def test_where_ssh_gets_we_get(world: World, name: str) -> None:
    reply = world.play(CONNECTS[name])
    assert (reply.ssh_code, reply.ssh_error) == (0, reply.ssh_error), reply.ssh_error
    assert reply.output == reply.ssh_output, reply
    assert not reply.error


WITHOUT_SSH = (
    "include of relative paths", "trailing comments", "an apostrophe in a comment", "Latin-1 in a comment",
    "a host key alias", "a known_hosts file with a blank", "the name in a ProxyCommand", "a jump host as URL",
    "canonical names without domains", "Match host=", "two jump hosts in order", "no jump host for this one",
    "a variable in an identity file", "tokens in an identity file", "an agent that the configuration names",
    "a missing identity file", "no identity file",
)  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_SSH)
def test_without_an_ssh_program_paramikos_reader_gets_there_too(world: World, name: str) -> None:
    reply = world.play(replace(CONNECTS[name], without_ssh=True))
    assert reply.output == reply.ssh_output, reply
    assert not reply.error


REFUSED: dict[str, tuple[Case, str, str]] = {
    "a key with a passphrase": (
        Case(
            {"keys/k": "key:enc"},
            "hosts: [gpu01]\ndefaults: {identity_file: ~/keys/k}\n",
            ONE,
            default_key=False,
            ssh_words=["-i", "~/keys/k"],
        ),
        "as root: there is no key to offer; /root/keys/k is passed over: it has a passphrase",
        "ssh-add /root/keys/k",
    ),
    "keys that nobody knows": (
        Case({".ssh/id_ed25519": "key:other"}, servers=ONE, agent=["many1"]),
        "as root: the server refused many1, /root/.ssh/id_ed25519 (1 of them from the SSH agent)",
        "ssh-copy-id",
    ),
    "too many keys": (
        Case(servers=[("127.0.0.11", 22, "MaxAuthTries 2")], agent=["many1", "many2", "many3"], default_key=False),
        "the server ended the login after 2 keys (Too many authentication failures): many1, many2",
        "IdentitiesOnly",
    ),
    "a second factor": (
        Case(servers=[("127.0.0.11", 22, "AuthenticationMethods publickey,keyboard-interactive")]),
        "accepts /root/.ssh/id_ed25519 and then demands a second factor (keyboard-interactive)",
        "AuthenticationMethods publickey",
    ),
    "no keys allowed": (
        Case(servers=[("127.0.0.11", 22, "PubkeyAuthentication no")]),
        "the server takes no keys, only password",
        "PubkeyAuthentication yes",
    ),
    "a jump host that forbids forwarding": (
        Case(
            inventory="hosts: [{name: gpu01, proxy_jump: s21}]\n",
            servers=[*ONE, ("127.0.0.21", 22, "AllowTcpForwarding no")],
            ssh_words=["-J", "s21"],
        ),
        "jump host s21 forbids connections to gpu01:22",
        "AllowTcpForwarding",
    ),
    "a name that the jump host does not know": (
        Case(
            inventory="hosts: [{name: gpu01, address: nowhere.lab, proxy_jump: s21}]\n",
            servers=[("127.0.0.21", 22, "")],
            ssh_words=["-J", "s21", "-o", "HostName=nowhere.lab"],
        ),
        "jump host s21 cannot connect to nowhere.lab:22",
        "on s21: does the name resolve",
    ),
    "a jump host that refuses the login": (
        Case(
            inventory="hosts: [{name: gpu01, proxy_jump: s21}]\n",
            servers=[*ONE, ("127.0.0.21", 22, "AllowUsers nobody")],
            ssh_words=["-J", "s21"],
        ),
        "jump host s21: cannot log in to s21 as root: the server refused /root/.ssh/id_ed25519",
        "copy your key to s21 with ssh-copy-id, or set `User` and `IdentityFile` for s21 in ~/.ssh/config",
    ),
    "a jump host that is down": (
        Case(inventory="hosts: [{name: gpu01, proxy_jump: 127.0.0.99}]\n", servers=ONE, ssh_words=["-J", "127.0.0.99"]),
        "jump host 127.0.0.99: cannot connect to 127.0.0.99",
        "is sshd running",
    ),
    "a jump host whose key is not known": (
        Case(
            {".ssh/known_hosts": "gpu01 {host}\n"},
            "hosts: [{name: gpu01, proxy_jump: bastion}]\n",
            JUMP,
            ssh_words=["-J", "bastion"],
        ),
        "jump host bastion: its host key is not known: bastion shows ssh-ed25519",
        "echo 'bastion ssh-ed25519",
    ),
    "a jump host that has no address": (
        Case(
            inventory="hosts: [{name: gpu01, proxy_jump: nowhere.lab}]\n", servers=ONE, ssh_words=["-J", "nowhere.lab"]
        ),
        "jump host nowhere.lab: the name nowhere.lab cannot be resolved",
        "DNS",
    ),
    "a jump host that is its own": (
        Case(config("ProxyJump bastion\n"), servers=JUMP),
        "goes through jump host bastion twice",
        "Host * !",
    ),
    "a certificate for another host": (
        Case({".ssh/known_hosts": "@cert-authority * {ca}\n"}, servers=[("127.0.0.11", 22, "{certificate}other")]),
        "with a certificate that is for other",
        "compare the fingerprint",
    ),
    "a revoked authority": (
        Case(
            {".ssh/known_hosts": "@cert-authority * {ca}\n@revoked * {ca}\n"},
            servers=[("127.0.0.11", 22, "{certificate}gpu01")],
        ),
        "its host key is not known",
        "compare the fingerprint",
    ),
    "a revoked key under the name without its port": (
        Case(config("Port 2222\n") | {".ssh/known_hosts": "gpu01 {host}\n@revoked gpu01 {host}\n"}, servers=BOTH),
        "its host key is revoked",
        "give the host a new one",
    ),
    "a gateway's key in place of the key of the host behind its port": (
        Case(config("Port 2222\n") | {".ssh/known_hosts": "gpu01 {host}\n[gpu01]:2222 {ca}\n"}, servers=BOTH),
        "its host key changed: [gpu01]:2222 shows ssh-ed25519",
        "someone may be in between",
    ),
    "a key of a revocation list": (
        Case(config("RevokedHostKeys ~/revoked\n", revoked="{host}\n"), servers=ONE),
        "its host key is revoked: gpu01 shows ssh-ed25519",
        "give the host a new one",
    ),
    "a revocation list that is not there": (
        Case(config("RevokedHostKeys ~/revoked\n"), servers=ONE),
        "its host key is revoked",
        "give the host a new one",
    ),
    "a ProxyCommand that fails": (
        Case(config("ProxyCommand echo no way to %h >&2; exit 7\n"), servers=ONE),
        "its ProxyCommand (echo) ended with exit status 0: no way to gpu01",
        "try: ssh gpu01",
    ),
    "a line that ssh does not know": (
        Case(config("Host gpu01\n  Prot 22\n"), servers=ONE),
        "Bad configuration option: prot",
        "correct it",
    ),
    "an unknown token": (Case(config("IdentityFile ~/%q\n"), servers=ONE), "found the unknown token %q", "correct it"),
    "a variable that is not set": (
        Case(config("IdentityFile ${NOBODY_SETS_IT}/k\n"), servers=ONE),
        "the environment has no NOBODY_SETS_IT",
        "export",
    ),
    "no agent": (
        Case(config("IdentityAgent none\n"), servers=ONE, agent=["op"], default_key=False),
        "no SSH agent is set up",
        "ssh-copy-id",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_where_ssh_fails_we_say_why(world: World, name: str) -> None:
    case, problem, remedy = REFUSED[name]
    reply = world.play(case)
    assert reply.ssh_code == 255, reply
    assert problem in reply.error, reply
    assert remedy in reply.remedy


def test_a_key_exchange_that_only_ssh_has_is_named(world: World) -> None:
    kex = "sntrup761x25519-sha512@openssh.com"
    reply = world.play(Case(servers=[("127.0.0.11", 22, f"KexAlgorithms {kex}")]))
    assert reply.ssh_code == 0
    assert (
        f"no common key exchange algorithm with gpu01: it offers {kex}; supported are curve25519-sha256, "
        in reply.error
    )
    assert reply.kind == "UnreachableError"


def outcome(reply: Reply) -> str:
    return f"{reply.kind}: {reply.output}{reply.error}"


@pytest.mark.parametrize("sessions", [1, 2])
@pytest.mark.parametrize("command", [["cleanup", "--name", "zz"], ["exec", "--", "echo", "here"]])
def test_servers_that_allow_few_sessions_work(world: World, sessions: int, command: list[str]) -> None:
    options = [command[0], "-i", "inventory.yaml", *command[1:]]
    reply = world.play(Case(servers=[("127.0.0.11", 22, f"MaxSessions {sessions}")], command=options))
    assert reply.kind == "0", outcome(reply)


def test_a_server_without_sessions_is_named(world: World) -> None:
    reply = world.play(Case(servers=[("127.0.0.11", 22, "MaxSessions 0")]))
    assert "refuses every command (MaxSessions 0" in reply.error


def test_an_ansible_inventorys_key_and_options_are_ssh_s(world: World) -> None:
    arguments = '-o ProxyCommand="ssh -q -W %h:%p bastion"'
    line = f"gpu01 ansible_ssh_private_key_file=~/keys/k ansible_ssh_common_args='{arguments}'\n"
    case = Case({"keys/k": "key:enc", "hosts.ini": line}, servers=JUMP, agent=["op"], default_key=False,
                command=["exec", "-i", "hosts.ini", "-v", "--", "echo", "here"])  # fmt: skip
    reply = world.play(case)
    assert reply.kind == "0", outcome(reply)
    assert "here" in reply.output
    assert "SSH configuration: " in reply.error


NC = "echo way >~/used\nexec 3<>/dev/tcp/$1/$2\ncat <&3 &\ncat >&3\nkill $!\n"
"""What `nc`, `cloudflared access ssh` and the like do."""


@pytest.mark.parametrize(
    "arguments",
    [
        '-o ProxyCommand="ssh -q root@bastion bash $HOME/nc %h %p"',
        '-o ProxyCommand="ssh -i ~/keys/k -W %h:%p -q root@bastion >/dev/null 2>&1 & bash ~/nc %h %p"',
        '-o ProxyCommand="bash ~/nc %h %p" -o ControlMaster=auto',
        "-F bastion.conf",
        "-C -Fbastion.conf -o StrictHostKeyChecking=yes",
    ],
)
@pytest.mark.parametrize("place", ["inventory", "ansible.cfg"])
def test_an_ansible_inventorys_way_through_a_proxy_is_taken(world: World, arguments: str, place: str) -> None:
    files = {"keys/k": "key:op", "nc": NC, "bastion.conf": "Host *\n  ProxyCommand bash ~/nc %h %p\n"}
    if place == "inventory":
        files["hosts.ini"] = f"gpu01 ansible_user=root ansible_ssh_common_args='{arguments}'\n"
    else:
        files |= {
            "hosts.ini": "gpu01\n",
            "ansible.cfg": f"[defaults]\nremote_user=root\n[ssh_connection]\nssh_args={arguments}\n",
        }
    case = Case(files, servers=JUMP, command=["exec", "-i", "hosts.ini", "--", "cat", "used"])
    reply = world.play(case)
    assert (reply.kind, "way" in reply.output) == ("0", True), outcome(reply)


def test_hosts_and_an_offline_plan_run_nothing_that_the_configuration_names(world: World) -> None:
    files = config('Match exec "echo ran >&2; sleep 9"\n  Port 1\n')
    reply = world.play(Case(files, command=["hosts", "-i", "inventory.yaml", "-v"], ssh_words=["-F", "none"]))
    assert (reply.kind, reply.error) == ("0", "")
