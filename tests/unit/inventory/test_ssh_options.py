from __future__ import annotations

import pytest

from flagscale_deploy.inventory.ssh_options import checked_ssh_options, read_ssh_options


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ("", {}),
        ("-o ProxyJump=bastion", {"proxy_jump": "bastion"}),
        ("-oProxyJump=ops@bastion:2222", {"proxy_jump": "ops@bastion:2222"}),
        ("-o 'ProxyJump bastion'", {"proxy_jump": "bastion"}),
        (
            "-J a,b -p2200 -l root -i ~/.ssh/k",
            {"proxy_jump": "a,b", "port": "2200", "user": "root", "identity_file": "~/.ssh/k"},
        ),
        (
            "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
            {"host_key_checking": "off", "known_hosts": "/dev/null"},
        ),
        ("-o stricthostkeychecking=accept-new", {"host_key_checking": "accept-new"}),
        ("-o StrictHostKeyChecking=yes", {"host_key_checking": "strict"}),
        ("-o StrictHostKeyChecking=ask", {}),
        ("-o UserKnownHostsFile='~/a ~/b'", {"known_hosts": "~/a ~/b"}),
        ("-C -o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=30", {}),
        ("-vA -qJ bastion", {"proxy_jump": "bastion"}),
        ("-o Port=1 -p 2", {"port": "1"}),
        ('-o ProxyCommand="ssh -W %h:%p -q bastion"', {"proxy_jump": "bastion"}),
        ("-o 'ProxyCommand=ssh -p 2222 -W \"[%h]:%p\" ops@bastion'", {"proxy_jump": "ops@bastion:2222"}),
        ("-o ProxyCommand='nc -x proxy:1080 %h %p'", {"ssh_options": "-o 'ProxyCommand=nc -x proxy:1080 %h %p'"}),
        (
            "-o 'ProxyCommand=ssh -i key -W %h:%p bastion'",
            {"ssh_options": "-o 'ProxyCommand=ssh -i key -W %h:%p bastion'"},
        ),
        (
            "-o 'ProxyCommand=ssh -o StrictHostKeyChecking=no -l ops bastion -W %h:%p'",
            {"ssh_options": "-o 'ProxyCommand=ssh -o StrictHostKeyChecking=no -l ops bastion -W %h:%p'"},
        ),
        (
            '-o ProxyCommand="sh -c \'nc \\"%h\\" %p\'"',
            {"ssh_options": """-o 'ProxyCommand=sh -c '"'"'nc "%h" %p'"'"''"""},
        ),
        ("-F cluster.cfg -p 22", {"port": "22", "ssh_options": "-F cluster.cfg"}),
        ("-Fcluster.cfg -6", {"ssh_options": "-F cluster.cfg -o AddressFamily=inet6"}),
        (
            "-o IdentitiesOnly=yes -o 'IdentityAgent ~/agent.sock' -b 10.0.0.9",
            {"ssh_options": "-o IdentitiesOnly=yes -o 'IdentityAgent=~/agent.sock' -o BindAddress=10.0.0.9"},
        ),
        ("-o ProxyCommand=none", {"ssh_options": "-o ProxyCommand=none"}),
    ],
)
def test_options_that_make_a_connection_become_our_keys(arguments: str, keys: dict[str, str]) -> None:
    assert read_ssh_options(arguments) == keys


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("-o StrictHostKeyChecking=maybe", "yes, no or accept-new"),
        ("-o 'unclosed", "quotation"),
        ("-p", "without a value"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(arguments: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_ssh_options(arguments)


def test_options_of_the_key_are_those_that_no_other_key_has() -> None:
    assert checked_ssh_options("-F mine -o IdentitiesOnly=yes -vA") == "-F mine -o IdentitiesOnly=yes"
    with pytest.raises(ValueError, match="port has a key of its own"):
        checked_ssh_options("-p 22")
