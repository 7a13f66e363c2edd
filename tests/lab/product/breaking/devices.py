"""GPUs that are missing, broken, unlike the others or in use, as the stand-in for nvidia-smi tells."""

from __future__ import annotations

from tests.lab import Gpu, GpuProcess
from tests.lab.product.breaking.stage import Stage, caught_by

NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running."
)


def equip(stage: Stage, *listed: Gpu, processes: tuple[GpuProcess, ...] = (), error: str | None = None) -> None:
    stage.undo.callback(stage.host.set_gpus, 1)
    stage.host.set_gpus(listed or 0, processes, error=error)


@caught_by("same-driver", "apt-get install nvidia-driver-580", state="warning", round="GPUs, warnings", at="node2")
def its_driver_is_another(stage: Stage) -> None:
    equip(stage, Gpu(driver="570.211.01"))


@caught_by("gpu-driver", "modprobe nvidia && nvidia-smi", round="GPUs, lost", at="node2")
def its_driver_does_not_answer(stage: Stage) -> None:
    equip(stage, error=NO_DRIVER)


@caught_by("gpu-count", "nvidia-smi -L", round="GPUs, lost", at="node3")
def it_has_fewer_gpus_than_the_inventory_says(stage: Stage) -> None:
    stage.inventory(gpus=2)


@caught_by("gpu-count", "nvidia-smi -L", round="GPUs, gone", at="node2")
def its_only_gpu_is_gone(stage: Stage) -> None:
    stage.inventory("all", gpus=1)
    equip(stage)


@caught_by("gpu-alike", "choose hosts with equal GPUs", round="GPUs, odd", at="node2")
def its_gpu_is_of_another_model(stage: Stage) -> None:
    equip(stage, Gpu("NVIDIA A100-SXM4-80GB", 81920))


@caught_by("gpu-alike", "choose hosts with equal GPUs", round="GPUs, odd", at="node3")
def its_gpu_has_less_memory(stage: Stage) -> None:
    equip(stage, Gpu(memory_mib=40960))


@caught_by("gpu-busy", "kill", round="GPUs, busy", at="node2")
def somebody_uses_its_gpu(stage: Stage) -> None:
    pid = stage.start("exec sleep 3600")
    equip(stage, Gpu(used_mib=40000), processes=(GpuProcess(0, pid, 40000, "python3"),))


@caught_by("gpu-busy", "fuser -v /dev/nvidia*", round="GPUs, busy", at="node3")
def somebody_who_can_not_be_seen_uses_its_gpu(stage: Stage) -> None:
    equip(stage, Gpu(used_mib=40000))


@caught_by("gpu-ecc", "nvidia-smi --gpu-reset -i 0", round="GPUs, odd", at="node4")
def its_gpu_had_memory_errors(stage: Stage) -> None:
    equip(stage, Gpu(ecc_uncorrected=3))


@caught_by("gpu-persistence", "nvidia-smi -pm 1", state="warning", round="GPUs, warnings", at="node3")
def its_driver_unloads_between_uses(stage: Stage) -> None:
    equip(stage, Gpu(persistence=False))


@caught_by("gpu-mig", "nvidia-smi -mig 0 -i 0", round="GPUs, busy", at="node4")
def its_gpu_is_split(stage: Stage) -> None:
    equip(stage, Gpu(mig=True))
