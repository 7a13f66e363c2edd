"""Networks that lose packets, are slow, or are another than the inventory says; ports that are taken."""

from __future__ import annotations

from tests.lab.product.breaking.stage import EVERYWHERE, PORT, Stage, caught_by

SYN = "match ip protocol 6 0xff match u8 0x02 0x12 at 33"


@caught_by("node-ip", "correct node_ip in the inventory", round="addresses", at="node2")
def its_node_ip_is_not_its_own(stage: Stage) -> None:
    stage.inventory(node_ip="192.0.2.33")


@caught_by("node-ip", "correct interface in the inventory")
def its_interface_is_not_there(stage: Stage) -> None:
    stage.inventory(interface="ib7")


@caught_by("hostname", "in /etc/hosts of {host}: 10.", state="warning", round="names", at="node4")
def its_name_is_a_loopback_address(stage: Stage) -> None:
    """As Debian's installer writes it."""
    stage.write(stage.host.directory / "hosts", f"127.0.0.1 localhost\n127.0.1.1 {stage.host.name}\n")


@caught_by("hostname", "in /etc/hosts of {host}: 10.", state="warning", round="addresses", at="node4")
def its_name_is_nowhere(stage: Stage) -> None:
    stage.write(stage.host.directory / "hosts", "127.0.0.1 localhost\n")


@caught_by("data-network", "iptables -I INPUT -p tcp")
def its_firewall_lets_one_host_not_in(stage: Stage) -> None:
    drop(stage, 1)


@caught_by("data-network", "iptables -I INPUT -p tcp")
def its_firewall_lets_no_host_in(stage: Stage) -> None:
    drop(stage, 0, 1, 3)


@caught_by("data-network", "ip route")
def it_has_no_route_to_one_host(stage: Stage) -> None:
    far = stage.lab.hosts[1].address
    stage.on(f"ip route add unreachable {far}/32", f"ip route del unreachable {far}/32")


@caught_by("data-network", "ip route")
def it_has_no_route_to_any_host(stage: Stage) -> None:
    for host in stage.lab.hosts:
        if host != stage.host:
            route = f"unreachable {host.address}/32"
            stage.on(f"ip route add {route}", f"ip route del {route}")


@caught_by("mtu", "ip link set eth0 mtu 1500", round="addresses", at="node3")
def its_packets_are_smaller(stage: Stage) -> None:
    stage.on("ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500")


@caught_by("bandwidth", "check its cable, port and driver", state="warning", words=("--network",))
def its_cable_is_slow(stage: Stage) -> None:
    rate_all(stage)
    stage.host.rate(20)


def rate_all(stage: Stage) -> None:
    """Give all cables the same rate: without one it is the machine's load that is measured."""
    for host in stage.lab.hosts:
        stage.undo.callback(host.rate, None)
        host.rate(400)


@caught_by("ports", f"ss -ltnp sport = :{PORT}", host="node1", round="flags", at="node2")
def the_engines_port_is_taken(stage: Stage) -> None:
    """On the driver's host: no other needs it."""
    listen(stage, PORT)


@caught_by("ports", "ss -ltnp sport = :6399", host="node1", round="values", at="node2")
def rays_port_is_taken(stage: Stage) -> None:
    """On the head. Without a port in the configuration another one would be chosen."""
    stage.deploy(ray={"port": 6399})
    listen(stage, 6399)


@caught_by("placement", "add hosts", host=EVERYWHERE)
def more_gpus_are_asked_for_than_there_are(stage: Stage) -> None:
    stage.flags(tensor_parallel_size=1, pipeline_parallel_size=8)


def drop(stage: Stage, *sources: int) -> None:
    """Silently drop packets that open connections from these hosts; not every kernel has netfilter."""
    stage.on(
        "ip link add sink type veth peer name drain && ip link set sink up && ip link set drain up\n"
        "tc qdisc add dev eth0 ingress",
        "tc qdisc del dev eth0 ingress; ip link del sink",
    )
    for source in sources:
        address = stage.lab.hosts[source].address
        stage.on(
            f"tc filter add dev eth0 parent ffff: protocol ip u32 match ip src {address}/32 {SYN}"
            " action mirred egress redirect dev sink"
        )


def listen(stage: Stage, port: int) -> None:
    head = stage.lab.hosts[0]
    stage.start(f"exec python3 -m http.server {port}", head)
    stage.on(f"until ss -Hltn | grep -q :{port}; do sleep 0.02; done", host=head)
