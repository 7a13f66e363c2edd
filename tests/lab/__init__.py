"""A lab: real hosts on one Linux machine, each with its own network, processes, name, home, /tmp and sshd.

    with Lab(hosts=3, gpus=2) as lab:
        lab.hosts[0].ssh("nvidia-smi -L")
        lab.hosts[1].cut()

For people: `python -m tests.lab up 3`. Needs root, iproute2 and openssh-server.
"""

from tests.lab.gpus import Gpu, GpuProcess
from tests.lab.host import Host
from tests.lab.keepers import LabError
from tests.lab.lab import Lab
from tests.lab.leftovers import Leftover
from tests.lab.permission import obstacle

__all__ = ["Gpu", "GpuProcess", "Host", "Lab", "LabError", "Leftover", "obstacle"]
