"""What is said of connections that fail: one cause, one complaint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flagscale_deploy.checks.registry import judge
from flagscale_deploy.checks.types import Context, Link, LinkFailure
from flagscale_deploy.facts.model import Interface
from tests.unit.checks.given import HOSTS, complaints, links, make_context, only
from tests.unit.plan.given import host, inventory, model, spec


def where(
    breaks: Callable[[Link], bool], failure: LinkFailure = "timed-out", problem: str = "timed out"
) -> tuple[Link, ...]:
    return tuple(replace(link, failure=failure, problem=problem) if breaks(link) else link for link in links())


def test_a_dead_host_is_one_complaint() -> None:
    verdict = only(make_context(tried=where(lambda link: "gpu03" in (link.source, link.target))))
    assert (verdict.check, verdict.host) == ("data-network", "gpu03")
    assert verdict.found == "no host can connect to 10.0.0.3:40003 (data): timed out"
    assert (
        "a firewall on gpu03? ssh -t 10.0.0.3 sudo iptables -I INPUT -p tcp -s 10.0.0.1,10.0.0.2,10.0.0.4"
        in verdict.remedy
    )


def test_a_host_that_lets_nobody_in_is_named_and_not_the_others() -> None:
    assert only(make_context(tried=where(lambda link: link.target == "gpu03"))).host == "gpu03"


def test_a_host_that_reaches_nobody_is_named_and_not_the_others() -> None:
    verdict = only(make_context(tried=where(lambda link: link.source == "gpu03")))
    assert verdict.host == "gpu03"
    assert verdict.found.startswith("cannot connect to any other host: gpu01 (10.0.0.1:40001, data)")


def test_a_blocked_port_is_named_with_all_whom_it_keeps_out() -> None:
    verdict = only(make_context(tried=where(lambda link: link.port == 6379)))
    assert verdict.host == "gpu01"
    assert verdict.found == "no host can connect to 10.0.0.1:6379 (Ray's port): timed out"
    assert "--dports 6379" in verdict.remedy


def test_a_pair_of_hosts_is_named_with_address_and_port() -> None:
    verdict = only(make_context(tried=where(lambda link: (link.source, link.target) == ("gpu02", "gpu03"))))
    assert verdict.host == "gpu03"
    assert verdict.found == "gpu02 cannot connect to 10.0.0.3:40003 (data): timed out"
    assert "-s 10.0.0.2 -j ACCEPT" in verdict.remedy


def test_a_host_that_could_not_try_is_told_once() -> None:
    problem = "cannot listen on 10.0.0.3"
    tried = (Link("gpu03", "gpu01", "10.0.0.3", 0, "data", failure="not-tried", problem=problem), *links())
    verdict = only(make_context(tried=tried))
    assert (verdict.host, verdict.found) == ("gpu03", "cannot listen on 10.0.0.3")


def test_of_two_hosts_that_do_not_reach_each_other_the_worker_is_named() -> None:
    tried = tuple(link for link in where(lambda _: True) if {link.source, link.target} <= {"gpu01", "gpu02"})
    serve_spec = spec(model(tp=16, engine_args={"max-model-len": 32768}))
    assert only(make_context(hosts=inventory("gpu01", "gpu02"), serve_spec=serve_spec, tried=tried)).host == "gpu02"


def test_a_network_that_connects_nobody_names_all_but_the_head() -> None:
    verdicts = complaints(make_context(tried=where(lambda _: True)))
    assert [(verdict.check, verdict.host) for verdict in verdicts] == [("data-network", name) for name in HOSTS[1:]]


def measured(slow: Callable[[Link], bool], rate: float = 1e8, latency: float = 0.0002) -> tuple[Link, ...]:
    return tuple(
        replace(link, bandwidth=rate if slow(link) else 1.2e9, latency=latency if slow(link) else 0.0002)
        if link.ephemeral
        else link
        for link in links()
    )


def test_a_slow_host_is_a_warning() -> None:
    verdict = only(make_context(tried=measured(lambda link: "gpu03" in (link.source, link.target))))
    assert (verdict.check, verdict.state, verdict.host) == ("bandwidth", "warning", "gpu03")
    assert verdict.found == "0.80 Gbit/s to 0.80 Gbit/s with every other host"
    assert verdict.expected == "9.60 Gbit/s, as the others reach"


def test_a_slow_pair_is_a_warning() -> None:
    verdict = only(make_context(tried=measured(lambda link: (link.source, link.target) == ("gpu02", "gpu03"))))
    assert (verdict.check, verdict.host, verdict.found) == ("bandwidth", "gpu02", "0.80 Gbit/s to gpu03")


def test_a_network_that_is_slow_everywhere_is_told_once() -> None:
    verdict = only(make_context(tried=measured(lambda _: True)))
    assert (verdict.check, verdict.state, verdict.host) == ("bandwidth", "warning", "")
    assert verdict.found == "0.80 Gbit/s, 0.2 ms from gpu01 to gpu02, and most pairs are as slow"
    assert verdict.expected == "1.00 Gbit/s and 5 ms for qwen/0"
    assert complaints(make_context(tried=measured(lambda _: True, rate=1.3e8))) == []


def between_two(rate: float, latency: float, speed: int | None = None, **settings: Any) -> Context:
    """Two hosts whose link is so fast (bytes a second, seconds), over interfaces of so many Mbit/s."""
    eth = {
        name: {"interfaces": (Interface("eth0", (f"10.0.0.{at}",), 1500, speed=speed),)}
        for at, name in enumerate(("gpu01", "gpu02"), 1)
    }
    tried = tuple(
        replace(link, bandwidth=rate, latency=latency) for link in links() if {link.source, link.target} <= set(eth)
    )
    settings.setdefault("serve_spec", spec(model(tp=16, engine_args={"max-model-len": 32768})))
    return make_context(eth, hosts=inventory("gpu01", "gpu02"), tried=tried, **settings)


def test_two_hosts_that_are_as_slow_as_each_other_are_too_slow_for_an_instance() -> None:
    verdict = only(between_two(1.25e6, 0.1))
    assert (verdict.check, verdict.state, verdict.host) == ("bandwidth", "warning", "gpu01")
    assert verdict.found == "0.01 Gbit/s, 100.0 ms to gpu02"
    assert verdict.expected == "1.00 Gbit/s and 5 ms for qwen/0"
    assert only(between_two(1.3e9, 0.006)).found == "10.40 Gbit/s, 6.0 ms to gpu02"
    assert complaints(between_two(1.3e9, 0.004)) == []


def test_a_link_is_to_reach_a_tenth_of_what_its_interface_says() -> None:
    verdict = only(between_two(2.5e8, 0.0002, speed=25000))
    assert (verdict.found, verdict.expected) == (
        "2.00 Gbit/s, 0.2 ms to gpu02",
        "2.50 Gbit/s, over an interface of 25.00 Gbit/s",
    )
    assert complaints(between_two(3.2e8, 0.0002, speed=25000)) == []
    assert complaints(between_two(6.3e8, 0.0002, speed=400000)) == []  # one stream does no more


def test_hosts_that_share_no_instance_may_be_far_apart() -> None:
    apart = spec(model(tp=8, replicas=2, engine_args={"max-model-len": 32768}), ray="on")
    assert complaints(between_two(2e7, 0.02, serve_spec=apart)) == []


def test_without_a_configuration_hosts_may_be_meant_for_one_instance() -> None:
    verdict = only(replace(between_two(2e7, 0.02, serve_spec=None), links=between_two(2e7, 0.02).links))
    assert (verdict.check, verdict.expected) == (
        "bandwidth",
        "1.00 Gbit/s and 5 ms for an instance over several hosts",
    )


def test_what_was_sampled_says_so() -> None:
    hosts = [f"gpu{number:02d}" for number in range(1, 13)]
    ring = [
        pair for one, other in zip(hosts, [*hosts[1:], hosts[0]], strict=True) for pair in ((one, other), (other, one))
    ]
    tried = tuple(
        Link(one, other, f"10.0.0.{int(other[-2:])}", 40000, "data", seconds=0.001, bandwidth=1.2e9, latency=0.0002)
        for one, other in ring
    )
    context = replace(make_context(hosts=inventory(*hosts), serve_spec=None), links=tried)
    (text,) = [verdict.found for verdict in judge(context) if verdict.check == "bandwidth"]
    assert text == "at least 9.60 Gbit/s, median 9.60 Gbit/s; at most 0.20 ms; measured on a ring of 12 hosts"


def test_a_wrong_node_ip_is_told_without_a_configuration() -> None:
    verdict = only(make_context(hosts=inventory("gpu01", host("gpu02", node_ip="10.9.9.9")), serve_spec=None))
    assert (verdict.check, verdict.state, verdict.host) == ("node-ip", "warning", "gpu02")


def test_a_missing_route_is_the_sources_and_explains_what_finds_no_way_back() -> None:
    tried = tuple(
        replace(link, failure="no-route", problem="No route to host")
        if (link.source, link.target) == ("gpu03", "gpu02")
        else replace(link, failure="timed-out", problem="timed out")
        if (link.source, link.target) == ("gpu02", "gpu03")
        else link
        for link in links()
    )
    verdict = only(make_context(tried=tried))
    assert verdict.host == "gpu03"
    assert verdict.found == "no route to gpu02 (10.0.0.2:40002, data): No route to host"
    assert verdict.remedy == "a route is missing on gpu03: ssh 10.0.0.3 ip route"


def test_a_firewall_that_answers_like_a_router_is_the_targets() -> None:
    """A firewall (firewalld) refuses with icmp-host-prohibited, which `connect` reports as no route to the host."""
    verdict = only(
        make_context(tried=where(lambda link: link.target == "gpu03", "unreachable", "unreachable: No route to host"))
    )
    assert verdict.host == "gpu03"
    assert "a firewall on gpu03?" in verdict.remedy
