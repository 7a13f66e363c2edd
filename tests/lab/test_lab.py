"""The lab itself: that its hosts are hosts, and that nothing of it stays behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab import Gpu, GpuProcess, Lab
from tests.lab.demolition import left_of, reap
from tests.lab.keepers import REPOSITORY
from tests.lab.network import links
from tests.lab.slots import Slot, registry
from tests.lab.state import HostState, LabState, is_zombie, pid_namespace

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab(hosts=3, gpus=2)


def eventually(true: Callable[[], bool], within: float = 60.0) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + within
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def reachable(address: str) -> bool:
    try:
        socket.create_connection((address, 22), timeout=1.0).close()
    except OSError:
        return False
    return True


def test_an_operator_logs_in_through_ssh_and_the_host_key_is_known(lab: Lab) -> None:
    assert [host.ssh("hostname").stdout for host in lab.hosts] == ["node1\n", "node2\n", "node3\n"]


def test_the_inventory_says_all_that_ansible_and_ssh_need(lab: Lab, tmp_path: Path) -> None:
    path = lab.inventory(tmp_path / "hosts.yaml", hosts=lab.hosts[:2], venv="/opt/v")
    shown = subprocess.run(
        [Path(sys.executable).with_name("ansible"), "all", "-i", path, "-m", "raw", "-a", "hostname; echo {{ venv }}"],
        capture_output=True,
        text=True,
        env={**os.environ, "ANSIBLE_HOST_KEY_CHECKING": "True", "LC_ALL": "C.UTF-8"},
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "node1\n/opt/v" in shown.stdout.replace("\r", "")
    assert "node2\n/opt/v" in shown.stdout.replace("\r", "")


def test_hosts_share_neither_files_nor_processes_nor_memory(lab: Lab) -> None:
    one, two, _ = lab.hosts
    one.run("touch ~/mine /tmp/mine /dev/shm/mine /run/mine; sleep 1234 >/dev/null 2>&1 &")
    look = "ls ~/mine /tmp/mine /dev/shm/mine /run/mine 2>/dev/null; pgrep -x sleep"
    assert len(one.run(look).stdout.splitlines()) == 5
    assert two.run(look, check=False).stdout == ""
    assert not Path("/tmp/mine").exists()


def test_hosts_reach_each_other_and_know_their_own_name(lab: Lab) -> None:
    one, two, _ = lab.hosts
    one.run(f"exec 3<>/dev/tcp/{two.address}/22")
    assert one.run("getent hosts node1").stdout.split()[0] == one.address


def test_names_that_nobody_knows_are_refused_at_once(lab: Lab) -> None:
    began = time.monotonic()
    assert lab.hosts[0].run("getent hosts metadata.google.internal", check=False).returncode != 0
    assert time.monotonic() - began < 4.0


def test_a_cut_host_is_silent_until_its_cable_is_back(lab: Lab) -> None:
    host = lab.hosts[2]
    host.cut()
    assert not reachable(host.address)
    assert host.run("hostname").stdout == "node3\n"
    host.join()
    assert eventually(lambda: reachable(host.address))


def test_a_slow_link_is_slow_both_ways_until_it_is_not(lab: Lab) -> None:
    host = lab.hosts[1]
    host.rate(20)
    assert seconds_to_send_a_megabyte(host.ssh_argv()) > 0.2
    assert seconds_to_receive_a_megabyte(host.ssh_argv()) > 0.2
    host.rate(None)
    assert "tbf" not in host.run("tc qdisc show dev eth0").stdout


def seconds_to_send_a_megabyte(ssh: list[str]) -> float:
    """Measured at the far end, so that the login doesn't count."""
    clock = "import sys, time; i = sys.stdin.buffer; i.read(1); t = time.time(); i.read(); print(time.time() - t)"
    done = subprocess.run([*ssh, f"python3 -c '{clock}'"], input=b"x" * 1_000_000, capture_output=True, check=True)
    return float(done.stdout)


def seconds_to_receive_a_megabyte(ssh: list[str]) -> float:
    with subprocess.Popen([*ssh, "head -c 1000000 /dev/zero"], stdout=subprocess.PIPE) as sender:
        assert sender.stdout is not None
        sender.stdout.read(1)
        began = time.monotonic()
        sender.stdout.read()
        return time.monotonic() - began


def test_nvidia_smi_reports_the_gpus_a_test_asks_for_while_the_host_is_up(lab: Lab) -> None:
    host = lab.hosts[0]
    host.set_gpus(2)
    assert len(host.ssh("nvidia-smi -L").stdout.splitlines()) == 2
    host.set_gpus([Gpu("NVIDIA A100", 40960, used_mib=1000)], [GpuProcess(gpu=0, pid=77, used_mib=900, name="python")])
    query = "--query-gpu=index,no.such --format=csv"
    assert host.ssh(f"nvidia-smi {query}", check=False).returncode == 2
    query = "--query-gpu=index,name,memory.total,memory.free --format=csv,noheader,nounits"
    assert host.ssh(f"nvidia-smi {query}").stdout == "0, NVIDIA A100, 40960, 39960\n"
    query = "--query-compute-apps=pid,used_memory,gpu_uuid --format=csv,noheader"
    assert host.ssh(f"nvidia-smi {query}").stdout == "77, 900 MiB, GPU-00000001-0000-0000-0000-000000000000\n"


def test_a_host_can_have_no_gpu_no_driver_that_answers_or_no_nvidia_smi(lab: Lab) -> None:
    host = lab.hosts[1]
    host.set_gpus([])
    assert host.ssh("nvidia-smi -L", check=False).returncode == 6
    host.set_gpus(8, error="NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
    assert host.ssh("nvidia-smi -L", check=False).returncode == 9
    host.set_gpus(0)
    assert host.ssh("command -v nvidia-smi", check=False).returncode != 0 or Path("/usr/bin/nvidia-smi").exists()


def test_borrowed_directories_are_at_their_own_path_and_cannot_be_written(
    make_lab: Callable[..., Lab], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("here")
    with Lab(hosts=1, mounts=[tmp_path]) as lab:
        assert lab.hosts[0].run(["cat", str(tmp_path / "file")]).stdout == "here"
        assert lab.hosts[0].run(["rm", "-rf", str(tmp_path / "file")], check=False).returncode != 0
    assert (tmp_path / "file").read_text() == "here"


def test_two_labs_live_side_by_side(lab: Lab) -> None:
    with Lab(hosts=1) as other:
        assert other.slot != lab.slot
        assert other.hosts[0].ssh("hostname").stdout == "node1\n"
        assert lab.hosts[0].ssh("hostname").stdout == "node1\n"


DEPLOYMENT = """
env -i sleep 601 &
exec python3 -c "import socket, time; held = socket.create_server(('', 7001)); time.sleep(600)"
"""


def test_what_a_deployment_leaves_is_found_and_what_others_run_is_not(lab: Lab) -> None:
    host = lab.hosts[0]
    host.run("cat >/tmp/deployment.sh", stdin=DEPLOYMENT)
    background = "</dev/null >/dev/null 2>&1 &"
    host.run(f"setsid bash /tmp/deployment.sh {background}", env={"FLAGSCALE_DEPLOY_RUN": "qwen/r1"})
    host.run(f"setsid sleep 602 {background}", env={"FLAGSCALE_DEPLOY_RUN": "qwen-other/r1"})
    host.run("mkdir -p ~/.flagscale-deploy/qwen/node1 /tmp/fsd-0-12345678")
    assert eventually(lambda: ("port", "7001") in kinds(lab, "qwen"))
    processes = lab.processes("qwen")
    assert sorted(process.command.split()[0] for process in processes) == ["python3", "sleep"]
    directories = {what for kind, what in kinds(lab, "qwen") if kind == "directory"}
    assert directories == {"/root/.flagscale-deploy/qwen", "/tmp/fsd-0-12345678"}

    # The marked one ends, and with it the session that gave the other away: that is known from before only.
    host.run("pkill -x python3; rm -r ~/.flagscale-deploy/qwen /tmp/fsd-*")
    assert eventually(lambda: kinds(lab, "qwen") == {("directory", "/root/.flagscale-deploy")})
    assert [left.what.split()[1:] for left in lab.leftovers("qwen", processes) if left.kind == "process"] == [
        ["sleep", "601"]
    ]
    host.run("pkill -x sleep; rmdir ~/.flagscale-deploy")
    assert eventually(lambda: lab.leftovers("qwen", processes) == [])


def kinds(lab: Lab, deployment: str) -> set[tuple[str, str]]:
    return {(left.kind, left.what) for left in lab.leftovers(deployment)}


def test_a_killed_host_is_gone_with_all_it_ran() -> None:
    with Lab(hosts=2) as lab:
        lab.hosts[0].kill()
        assert eventually(lambda: left_of([lab.hosts[0].state]) == [])
        assert not lab.hosts[0].alive
        assert lab.hosts[1].ssh("hostname").stdout == "node2\n"


def test_a_namespace_that_has_gone_to_another_lab_is_no_leftover() -> None:
    with Lab(hosts=1) as lab:
        state = lab.hosts[0].state
        assert state.pid in left_of([state])
        assert left_of([replace(state, pid=os.getpid())]) == []


def test_the_machine_keeps_its_card_when_the_cable_with_the_lowest_is_gone() -> None:
    with Lab(hosts=2) as lab:
        lowest, card = lab.slot.cable(0), Path(f"/sys/class/net/{lab.slot.bridge}/address")
        subprocess.run(["ip", "link", "set", lowest, "address", "02:00:00:00:00:01"], check=True)
        before = card.read_text()
        subprocess.run(["ip", "link", "del", lowest], check=True)
        assert card.read_text() == before


def test_a_host_whose_first_process_has_ended_is_not_alive_before_somebody_has_waited_for_it() -> None:
    first = subprocess.Popen(["sleep", "604"])
    try:
        namespace = pid_namespace(first.pid)
        assert namespace is not None
        host = HostState(name="node1", address="10.77.1.11", pid=first.pid, namespace=namespace)
        assert host.alive
        first.kill()
        assert eventually(lambda: is_zombie(first.pid))
        assert pid_namespace(first.pid) == namespace
        assert not host.alive
    finally:
        first.kill()
        first.wait()


def test_eight_hosts_are_up_in_a_moment() -> None:
    began = time.monotonic()
    with Lab(hosts=8) as lab:
        # 0.1 s a host on an idle machine with two cores; room for a busy one.
        assert time.monotonic() - began < 10.0
        assert len(lab.hosts) == 8


def test_a_closed_lab_leaves_neither_processes_links_nor_files() -> None:
    with Lab(hosts=2) as lab:
        lab.hosts[0].run("setsid sleep 603 >/dev/null 2>&1 &")
    assert_gone(lab.state)
    lab.close()


OWNER = """
import time
from tests.lab import Lab
lab = Lab(hosts=2)
print(lab.state.dumps(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def foreign_lab() -> Iterator[tuple[subprocess.Popen[str], LabState]]:
    """Provide a lab of another process, and that process."""
    with subprocess.Popen([sys.executable, "-c", OWNER], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        yield owner, LabState.loads(owner.stdout.readline())
        owner.kill()


def test_a_lab_goes_when_its_owner_is_killed(foreign_lab: tuple[subprocess.Popen[str], LabState]) -> None:
    owner, state = foreign_lab
    assert all(host.alive for host in state.hosts)
    owner.send_signal(signal.SIGKILL)
    assert eventually(lambda: LabState.of(state.slot) != state)
    assert_gone(state)


def test_hosts_die_with_a_killed_keeper_and_the_next_comer_clears_the_rest(
    foreign_lab: tuple[subprocess.Popen[str], LabState],
) -> None:
    _, state = foreign_lab
    os.kill(state.keeper, signal.SIGKILL)
    assert eventually(lambda: not any(host.alive for host in state.hosts))
    with registry():
        reap()
    assert_gone(state)


def test_a_lab_of_a_person_outlives_the_command_and_ends_with_down() -> None:
    lab_command = [sys.executable, "-m", "tests.lab"]
    shown = subprocess.run([*lab_command, "up", "2"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    slot = re.match(r"slot (\d+): node1 ", shown)
    assert slot, shown
    at = [*lab_command, "--slot", slot[1]]
    named = subprocess.run([*at, "ssh", "2", "hostname"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert named.stdout == "node2\n"
    state = LabState.of(Slot(int(slot[1])))
    subprocess.run([*at, "down"], cwd=REPOSITORY, capture_output=True, check=True)
    assert state is not None
    assert_gone(state)


def assert_gone(state: LabState) -> None:
    """Nothing of the lab is on the machine; its slot may already be another lab's."""
    assert left_of(state.hosts) == []
    assert LabState.of(state.slot) != state
    with registry():
        if not state.slot.directory.exists():
            assert links(state.slot) == []
