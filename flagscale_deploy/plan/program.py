"""Plan a program of the user's own as the process that serves: a Ray driver on the head, with all GPUs in Ray."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from flagscale_deploy.config.program_files import ProgramFiles
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.plan.environment import host_environment
from flagscale_deploy.plan.gpu_use import Busy, Free, describe_free
from flagscale_deploy.plan.instance import file_name
from flagscale_deploy.plan.model import InstancePlan, Network, RayPlan, join_port
from flagscale_deploy.plan.network import LOOPBACK, public_address
from flagscale_deploy.plan.ports import Ports
from flagscale_deploy.plan.rank import API_PORT, Rank

PROGRAM = "program"
"""The engine of an instance that is a program."""


def is_program(instance: InstancePlan) -> bool:
    """Return whether an instance is a program of the user's own, not an engine."""
    return instance.engine == PROGRAM


def plan_program(
    spec: ServeSpec,
    program: ProgramFiles,
    inventory: Inventory,
    networks: Mapping[str, Network],
    free: Free,
    ray: RayPlan,
    ports: Ports,
) -> InstancePlan:
    """Return the driver on the head; Ray manages all free GPUs, and assigns them to its tasks.

    The task that listens on `deploy.port` may run on any node, so the port is taken on all of them.
    """
    head = inventory.head
    name = PurePosixPath(program.entrypoint).stem
    hosts = [node.host for node in ray.nodes]
    if spec.program_port is not None:
        for host in hosts:
            ports.fixed(host, spec.program_port, f"{name}/0", spec.where("deploy", "port"))
    addresses = _addresses(spec.program_port, inventory, networks, hosts)
    driver = Rank(
        name=f"{name}/0",
        number=0,
        role="driver",
        host=head.name,
        gpus=tuple(free[head.name]),
        argv=("python3", "-u", f"app/program/{program.entrypoint}", "--config-path=secrets/config.yaml",
              "--log-dir=logs/app"),
        env=host_environment(spec, head, networks[head.name]) | {"RAY_ADDRESS": ray.address},
        script=f"program_{file_name(name)}.sh",
        ports={} if spec.program_port is None else {API_PORT: spec.program_port},
    )  # fmt: skip
    return InstancePlan(
        model=name,
        replica=0,
        engine=PROGRAM,
        gpus={host: tuple(free[host]) for host in hosts},
        executor="ray",
        ranks=(driver,),
        endpoint=next(iter(addresses.values()), ""),
        served_name="",
        addresses=addresses,
    )


def tasks_without_room(spec: ServeSpec, free: Free, busy: Busy) -> list[Fault]:
    """Return a fault for each kind of task that wants more GPUs than any host has free: Ray would wait for ever.

    Ray gives a task the GPUs of one node.
    """
    most = max(map(len, free.values()))
    without_others = max(len(gpus) + len(busy.get(name, {})) for name, gpus in free.items())
    return [
        Fault(
            spec.where("deploy", "models", name, "num_gpus"),
            f"a task needs {wanted:g} GPU{'' if wanted == 1 else 's'} of one host; "
            f"free GPUs: {describe_free(free, free, busy)}",
            "add hosts, lower num_gpus, or free GPUs (--force uses busy ones)",
            "gpu-busy" if wanted <= without_others else "placement",
        )
        for name, options in spec.remote_options.items()
        if isinstance(wanted := options.get("num_gpus", 0), int | float) and wanted > most
    ]


def _addresses(
    port: int | None, inventory: Inventory, networks: Mapping[str, Network], hosts: list[str]
) -> dict[str, str]:
    """Return where the head can reach the port, with the endpoint for clients of each; the head itself first."""
    if port is None:
        return {}
    addresses = {}
    for name in hosts:
        public = f"http://{join_port(public_address(inventory[name], networks[name]), port)}"
        if name == inventory.head.name:
            addresses[f"http://{join_port(LOOPBACK, port)}"] = public
        addresses[f"http://{join_port(networks[name].node_ip, port)}"] = public
    return addresses
