from __future__ import annotations

import pytest

from flagscale_deploy.inventory.ssh_options import read_ssh_options


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
        ("-o UserKnownHostsFile='~/a ~/b'", {"known_hosts": "~/a"}),
        ("-C -4 -o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=30", {}),
        ("-vA -qJ bastion", {"proxy_jump": "bastion"}),
        ("-o Port=1 -p 2", {"port": "1"}),
        ('-o ProxyCommand="ssh -W %h:%p -q bastion"', {"proxy_jump": "bastion"}),
        ("-o 'ProxyCommand=ssh -p 2222 -W \"[%h]:%p\" ops@bastion'", {"proxy_jump": "ops@bastion:2222"}),
        (
            "-o 'ProxyCommand=/usr/bin/ssh -o StrictHostKeyChecking=no -l ops bastion -W %h:%p'",
            {"proxy_jump": "ops@bastion"},
        ),
        ("-o ProxyCommand=none", {}),
    ],
)
def test_options_that_make_a_connection_become_our_keys(arguments: str, keys: dict[str, str]) -> None:
    assert read_ssh_options(arguments) == keys


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("-o ProxyCommand='nc -x proxy:1080 %h %p'", "ProxyJump="),
        ("-o ProxyCommand='ssh -i key -W %h:%p bastion'", "ProxyJump="),
        ("-o ProxyCommand='ssh bastion nc %h %p'", "ProxyJump="),
        ("-o StrictHostKeyChecking=maybe", "yes, no or accept-new"),
        ("-F cluster.cfg", "~/.ssh/config"),
        ("-o 'unclosed", "quotation"),
        ("-p", "without a value"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(arguments: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_ssh_options(arguments)
