"""What nvidia-smi prints, as recorded on hosts and as its manual says, and what becomes of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from flagscale_deploy.remote.system import gpus
from flagscale_deploy.remote.system.proc import Process, scan
from flagscale_deploy.remote.system.subprocesses import Ended
from tests.component.remote.living import SLEEP, Household
from tests.lab import gpus as stand_in

H100_X8 = """\
0, GPU-5e1b3c0f-9a52-7d2e-3f0a-1c9d8b7a6e50, NVIDIA H100 80GB HBM3, 81559, 74211, 550.90.07
1, GPU-0f7f5a21-8c1e-9f4d-6d1b-2ab1c4d9e811, NVIDIA H100 80GB HBM3, 81559, 74211, 550.90.07
2, GPU-a9d4c6e3-1f2b-4c8a-b0e7-93d5f1a2c472, NVIDIA H100 80GB HBM3, 81559, 4, 550.90.07
3, GPU-77c2e8d1-3b5f-4d6a-8e9c-04b6a7d8e933, NVIDIA H100 80GB HBM3, 81559, 4, 550.90.07
4, GPU-3c1d9e7b-6a5f-4b8c-9d0e-15c7b8e9fa44, NVIDIA H100 80GB HBM3, 81559, 4, 550.90.07
5, GPU-d8e2f4a6-0c1b-4e3d-a5f7-26d8c9fa0b55, NVIDIA H100 80GB HBM3, 81559, 4, 550.90.07
6, GPU-19f3a5b7-2d4c-4f6e-b8a0-37e9da0b1c66, NVIDIA H100 80GB HBM3, 81559, 4, 550.90.07
7, GPU-60a4b6c8-3e5d-4a7f-c9b1-48fa0b1c2d77, NVIDIA H100 80GB HBM3, 81559, 4, 550.90.07
"""
H100_APPS = """\
GPU-5e1b3c0f-9a52-7d2e-3f0a-1c9d8b7a6e50, 4711, 74196
GPU-0f7f5a21-8c1e-9f4d-6d1b-2ab1c4d9e811, 4712, 74196
GPU-0f7f5a21-8c1e-9f4d-6d1b-2ab1c4d9e811, 990, [N/A]
"""
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n\n"
)
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.90\n"
LOST = (
    "Unable to determine the device handle for GPU0000:41:00.0: GPU is lost.  Reboot the system to recover this GPU\n"
)


def test_eight_gpus_with_memory_and_driver() -> None:
    devices = gpus.parse_devices(H100_X8, ())
    assert [device.gpu["index"] for device in devices] == list(range(8))
    assert devices[0].driver_version == "550.90.07"
    assert devices[0].gpu == {
        "index": 0,
        "uuid": "GPU-5e1b3c0f-9a52-7d2e-3f0a-1c9d8b7a6e50",
        "name": "NVIDIA H100 80GB HBM3",
        "memory_total_mib": 81559,
        "memory_used_mib": 74211,
        "processes": [],
        "ecc_uncorrected": None,
        "persistence": None,
        "mig": None,
        "utilization": None,
    }


@pytest.mark.parametrize(
    ("line", "total", "used"),
    [
        ("0, GPU-1, NVIDIA GB10, [N/A], [N/A], 580.95.05", 0, 0),
        ("0, GPU-1, Tesla K80, 11441, [Not Supported], 470.82.01", 11441, 0),
        ("0, GPU-1, NVIDIA A100-SXM4-40GB, 40960, [Insufficient Permissions], 535.129.03", 40960, 0),
        ("0, GPU-1, NVIDIA A100-SXM4-40GB MIG 1g.5gb, 4864, [Unknown Error], 535.129.03", 4864, 0),
    ],
)
def test_a_figure_that_is_not_given_counts_as_none(line: str, total: int, used: int) -> None:
    (device,) = gpus.parse_devices(line, ())
    gpu = device.gpu
    assert (gpu["memory_total_mib"], gpu["memory_used_mib"]) == (total, used)


def test_processes_go_to_their_gpus_with_user_command_and_marker() -> None:
    mine = Process(4711, 1, 4711, 5, "S", os.getuid(), "VLLM::EngineCore", "qwen/r1")
    devices = gpus.parse_devices(H100_X8, ())
    gpus.attach(devices, gpus.parse_apps(H100_APPS), {4711: mine})
    since = devices[0].gpu["processes"][0]["since"]
    assert devices[0].gpu["processes"] == [
        {
            "pid": 4711,
            "memory_mib": 74196,
            "user": gpus.user_of(os.getuid()),
            "command": "VLLM::EngineCore",
            "run": "qwen/r1",
            "since": since,
        }
    ]
    assert [(process["pid"], process["memory_mib"]) for process in devices[1].gpu["processes"]] == [
        (4712, 74196),
        (990, 0),
    ]
    assert (devices[1].gpu["processes"][1]["user"], devices[1].gpu["processes"][1]["since"]) == ("", None)
    assert devices[2].gpu["processes"] == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Ended(0, H100_X8, ""), None),
        (Ended(0, H100_X8, "warning: infoROM is corrupted at gpu 0000:04:00.0"), None),
        (Ended(9, NO_DRIVER, ""), NO_DRIVER.strip()),
        (Ended(9, "", NO_DRIVER), NO_DRIVER.strip()),
        (
            Ended(18, MISMATCH, ""),
            "Failed to initialize NVML: Driver/library version mismatch NVML library version: 550.90",
        ),
        (Ended(6, "No devices were found\n", ""), "No devices were found"),
        (Ended(15, "".join(H100_X8.splitlines(True)[:2]) + LOST, ""), LOST.strip()),
        (Ended(12, "", ""), "nvidia-smi ended with exit status 12"),
        (Ended(None, "", ""), "nvidia-smi did not answer within 15 s"),
    ],
)
def test_what_nvidia_smi_complains_of(answer: Ended, error: str | None) -> None:
    assert gpus.error_of(answer, ()) == error


def test_gpus_that_answer_are_seen_beside_one_that_is_lost() -> None:
    assert len(gpus.parse_devices("".join(H100_X8.splitlines(True)[:2]) + LOST, ())) == 2


def test_numbers_that_no_driver_gives_are_passed_over() -> None:
    long = "9" * 5000
    assert gpus.parse_devices(f"{long}, GPU-1, H200, 1, 1, 550, 0, Enabled, Disabled, 0\n²" + ", x" * 9) == []
    assert gpus.parse_apps(f"GPU-1, {long}, 1\nGPU-1, ²³, 1") == []


def test_mig_text_among_the_answers_is_passed_over() -> None:
    text = "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-1)\n  MIG 3g.20gb     Device  0: (UUID: MIG-2)\n"
    assert gpus.parse_devices(text) == []
    assert gpus.parse_apps("[Not Found]\nNo running processes found\n") == []


@pytest.mark.parametrize(
    ("line", "errors", "persistence", "mig", "utilization"),
    [
        # driver 580 on an H100, and with MIG on: memory and counters are still those of the whole GPU
        ("0, GPU-1, NVIDIA H100 80GB HBM3, 81559, 0, 580.159.03, 0, Enabled, Disabled, 97", 0, True, False, 97),
        ("0, GPU-1, NVIDIA H100 PCIe, 81559, 1, 570.124.06, 2, Disabled, Enabled, [N/A]", 2, False, True, None),
        # a GPU without ECC memory and MIG: https://github.com/Syllo/nvtop/pull/470 has the words
        ("0, GPU-1, NVIDIA GeForce RTX 5090, 32607, 2, 580.82.07, [N/A], Disabled, [N/A], 0", None, False, None, 0),
        ("0, GPU-1, Tesla K80, 11441, 0, 470.82.01, 0, [Not Supported], [Not Supported], [N/A]", 0, None, None, None),
        ("0, GPU-1, NVIDIA A100, 40960, 0, 535.129.03, [Unknown Error], [N/A], [Unknown Error], [N/A]", None, None,
         None, None),
    ],
)  # fmt: skip
def test_the_condition_of_a_gpu(
    line: str, errors: int | None, persistence: bool | None, mig: bool | None, utilization: int | None
) -> None:
    (device,) = gpus.parse_devices(line)
    gpu = device.gpu
    condition = gpu["ecc_uncorrected"], gpu["persistence"], gpu["mig"], gpu["utilization"]
    assert condition == (errors, persistence, mig, utilization)


def test_a_process_on_a_gpu_bears_the_time_of_its_start(people: Household) -> None:
    before = time.time()
    (pid,) = people.python(SLEEP)
    (process,) = [process for process in scan() if process.pid == pid]
    devices = gpus.parse_devices(H100_X8, ())
    gpus.attach(devices, [gpus.App(devices[3].gpu["uuid"], pid, 1)], {pid: process})
    since = devices[3].gpu["processes"][0]["since"]
    assert since is not None
    assert before - 1 < since < time.time() + 1


def test_without_nvidia_smi_there_are_no_gpus_and_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.see(gpus.ask(), []) == gpus.Seen([], None, None)


@pytest.fixture
def nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Put the lab's stand-in on PATH, with these GPUs."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return partial(stand_in.install, tmp_path)


def test_nvidia_smi_is_asked_for_devices_and_processes(nvidia_smi: Callable[..., None]) -> None:
    well = stand_in.Gpu(used_mib=5, driver="570.124.06")
    ill = stand_in.Gpu(ecc_uncorrected=3, persistence=False, mig=True)
    consumer = stand_in.Gpu(name="NVIDIA GeForce RTX 5090", ecc_uncorrected=None, mig=None)
    nvidia_smi([well, ill, consumer], [stand_in.GpuProcess(1, 4712, 900), stand_in.GpuProcess(1, 990)])
    seen = gpus.see(gpus.ask(), [])
    assert (len(seen.gpus), seen.gpu_error, seen.driver_version) == (3, None, "570.124.06")
    assert [gpu["pid"] for gpu in seen.gpus[1]["processes"]] == [4712, 990]
    assert [(gpu["ecc_uncorrected"], gpu["persistence"], gpu["mig"]) for gpu in seen.gpus] == [
        (0, True, False),
        (3, False, True),
        (None, True, None),
    ]
    assert "driver_version" not in seen.gpus[0]


@pytest.mark.parametrize("unknown", [gpus.EXTRAS[:1], gpus.EXTRAS[1:], gpus.EXTRAS])
def test_a_driver_that_does_not_know_a_field_is_asked_for_the_others(
    nvidia_smi: Callable[..., None], unknown: tuple[str, ...]
) -> None:
    nvidia_smi([stand_in.Gpu(used_mib=7, ecc_uncorrected=1)], unknown=unknown)
    seen = gpus.see(gpus.ask(), [])
    assert (seen.gpu_error, [gpu["memory_used_mib"] for gpu in seen.gpus]) == (None, [7])
    condition = {"ecc_uncorrected": 1, "persistence": True, "mig": False, "utilization": 0}
    for name, (field, value) in zip(gpus.EXTRAS, condition.items(), strict=True):
        assert dict(seen.gpus[0])[field] == (None if name in unknown else value)


def test_a_driver_that_fails_is_asked_once(nvidia_smi: Callable[..., None]) -> None:
    nvidia_smi(1, error=NO_DRIVER.strip())
    assert gpus.see(gpus.ask(), []) == gpus.Seen([], NO_DRIVER.strip(), None)
