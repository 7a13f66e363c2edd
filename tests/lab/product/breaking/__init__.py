"""Everything that `check` looks for, broken on purpose: each fault is injected on a lab host and taken back."""

from tests.lab.product.breaking import devices, leftovers, memory, models, network, reach, security, software
from tests.lab.product.breaking.stage import FAULTS, Fault, Stage, rounds

__all__ = [
    "FAULTS",
    "Fault",
    "Stage",
    "devices",
    "leftovers",
    "memory",
    "models",
    "network",
    "reach",
    "rounds",
    "security",
    "software",
]
