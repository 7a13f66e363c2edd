"""What goes wrong: one function a fault, and how it is undone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.lab.boot import hidden
from tests.lab.faults.scene import Innocents, Scene, pause
from tests.lab.faults.stages import ENGINES_END, LOADING, PROBED, RAY, RAY_ENDS, READY, UPLOADING, WHOLE
from tests.lab.leftovers import Process
from tests.lab.product import cron
from tests.lab.product.operator import eventually
from tests.lab.product.stand_in import PLACE

RUNS = (PROBED, UPLOADING, RAY, LOADING)
STOPS = (ENGINES_END, RAY_ENDS)
MOMENTS = (*RUNS, READY, *STOPS)

NO_COMMAND = {READY: "no command is running"}
NOTHING_YET = {PROBED: "nothing is started yet", UPLOADING: "nothing is started yet"}


def nothing(_scene: Scene) -> None:
    """There is nothing to do."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    `prepare` happens before the command is typed, `strike` at the stage, `undo` after `status` and `stop` were asked,
    `after` when the cell is over.
    `exits` are the exit statuses that the command may end with, by stage, `says` what it then has to say (a pattern)
    unless it ended well. `held`: loading is held until the command has ended. `lost`: the host cannot be reached
    meanwhile. `spoiled`: what runs is not well any more. `within` is the command's deadline in seconds.
    """

    name: str
    strike: Callable[[Scene], None]
    stages: tuple[str, ...]
    exits: Callable[[str], set[int]]
    says: str = ""
    undo: Callable[[Scene], None] = nothing
    prepare: Callable[[Scene], None] = nothing
    after: Callable[[Scene], None] = nothing
    why_not: Mapping[str, str] = field(default_factory=dict)
    held: bool = False
    lost: bool = False
    spoiled: bool = False
    within: float = 60.0


def always(*codes: int) -> Callable[[str], set[int]]:
    return lambda _stage: set(codes)


def run_or_stop(run: set[int], stop: set[int]) -> Callable[[str], set[int]]:
    return lambda stage: stop if stage in STOPS else run


# The operator


def kill_operator(scene: Scene) -> None:
    scene.running.abandon()


def interrupt_twice(scene: Scene) -> None:
    """Press Ctrl-C twice, the second time while the first is being obeyed."""
    before = len(scene.running.said)
    scene.running.send(signal.SIGINT)
    eventually(lambda: len(scene.running.said) > before, within=1.0)
    scene.running.send(signal.SIGINT)


def small_disk_here(scene: Scene) -> None:
    place = scene.desk.directory / "small-disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", place], check=True)
    scene.kept["disk"] = place
    scene.words.append(f"experiment.exp_dir={place}/outputs")


def fill(place: Path) -> None:
    with (place / "full").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(512)):
                pass
        except OSError:
            return


def fill_disk_here(scene: Scene) -> None:
    fill(scene.kept["disk"])


def small_full_disk_here(scene: Scene) -> None:
    small_disk_here(scene)
    fill_disk_here(scene)


def empty_disk_here(scene: Scene) -> None:
    subprocess.run(["umount", "-l", scene.kept.pop("disk")], check=True)
    scene.words.clear()


# Between operator and host


def sessions(scene: Scene) -> list[str]:
    """Return the processes of sshd that serve a login; the first process is the one that listens."""
    pids = scene.host.run("grep -ls '^sshd' $(ls -d /proc/[0-9]*/comm)", check=False).stdout.split()
    return [pid for path in pids if (pid := path.split("/")[2]) != "1"]


def drop_connections(scene: Scene) -> None:
    scene.host.run(["kill", "-9", *sessions(scene)], check=False)


def cut(scene: Scene) -> None:
    scene.host.cut()


def join(scene: Scene) -> None:
    scene.host.join()


def cut_and_join(scene: Scene) -> None:
    """For a moment that TCP bridges."""
    scene.host.cut()
    pause(3.0)
    scene.host.join()


def silence(scene: Scene) -> None:
    """Stop sshd: the kernel accepts and acknowledges, and sshd sends nothing."""
    if logged_in := sessions(scene):
        scene.host.run(["kill", "-STOP", *logged_in], check=False)
    os.kill(scene.host.state.pid, signal.SIGSTOP)


def end_silence(scene: Scene) -> None:
    os.kill(scene.host.state.pid, signal.SIGCONT)
    if logged_in := sessions(scene):
        scene.host.run(["kill", "-CONT", *logged_in], check=False)


def slow_down(scene: Scene) -> None:
    scene.host.rate(0.008)


def speed_up(scene: Scene) -> None:
    scene.host.rate(None)


# The host


def lose_power(scene: Scene) -> None:
    scene.host.kill()
    assert eventually(lambda: not scene.host.alive)


def power_on(scene: Scene) -> None:
    press_power_button(scene)
    cron.boot(scene.host)


def press_power_button(scene: Scene) -> None:
    scene.lab.power_on(scene.at)
    innocents(scene).start(scene.at)


def reboot(scene: Scene) -> None:
    """At once; a pid that the record names is another's when it is back."""
    processes = scene.processes(scene.host)
    lose_power(scene)
    press_power_button(scene)
    if processes:
        take_a_pid(scene, processes)
    cron.boot(scene.host)


def take_a_pid(scene: Scene, processes: Sequence[Process]) -> None:
    pid = max(process.pid for process in processes)
    while True:  # whatever is born in between takes the number
        scene.host.run(f"echo {pid - 1} >/proc/sys/kernel/ns_last_pid; setsid sleep 86400 </dev/null >/dev/null 2>&1 &")
        seen = scene.host.run(["cat", f"/proc/{pid}/cmdline"], check=False).stdout
        if seen.startswith("sleep"):
            break
    innocents(scene).add(scene.at, pid)


def innocents(scene: Scene) -> Innocents:
    kept = scene.kept["innocents"]
    assert isinstance(kept, Innocents)
    return kept


STATES = "/root/.flagscale-deploy"


def small_disk(scene: Scene) -> None:
    """Put what the product keeps on the host on a disk of 1 MiB."""
    scene.host.run(f"mkdir -m 700 {STATES} && mount -t tmpfs -o size=1m,mode=700 none {STATES}")


def fill_small_disk(scene: Scene) -> None:
    scene.host.run(f"dd if=/dev/zero of={STATES}/full bs=512 2>/dev/null; test -s {STATES}/full")


def empty_small_disk(scene: Scene) -> None:
    scene.host.run(f"rm -f {STATES}/full")


def small_full_disk(scene: Scene) -> None:
    small_disk(scene)
    fill_small_disk(scene)


def own_disk(scene: Scene) -> None:
    """Remove the empty place to mount on, which is no leftover of the deployment."""
    scene.host.run(f"umount -l {STATES}; rmdir {STATES}", check=False)


def home_read_only(scene: Scene) -> None:
    """By a mount of its own: a file that is open for writing keeps the one below it from becoming read-only."""
    scene.host.run("mount --rbind /root /root && mount -o remount,bind,ro /root")


def home_writable(scene: Scene) -> None:
    scene.host.run("umount -l /root")


def clock_jumps(scene: Scene) -> None:
    """Faked in the record: it was begun by a clock that was a day ahead and has been set right since."""
    scene.record(scene.host, "known['started_at'] += 86400.0")


def clean_tmp(scene: Scene) -> None:
    """As a job of the night would; what the host borrows from the machine lies there as well, and can't be harmed."""
    scene.host.run("find /tmp -mindepth 1 -delete 2>/dev/null; ! ls -d /tmp/fsd-* 2>/dev/null")


# Processes


def kill_daemon(name: str) -> Callable[[Scene], None]:
    def strike(scene: Scene) -> None:
        """On the head, or where Ray's end is held."""
        host = scene.host if scene.daemons(scene.host, name) else scene.lab.hosts[0]
        (pid, *_) = scene.daemons(host, name)
        host.run(["kill", "-9", str(pid)])

    return strike


def kill_engine(scene: Scene) -> None:
    scene.engine_host.run(["kill", "-9", str(scene.engine()["pid"])])


def kill_worker(scene: Scene) -> None:
    scene.engine_host.run(["kill", "-9", str(scene.engine()["children"][0])])


def hang(scene: Scene) -> None:
    """Stop the engine core: `/health` goes on with 200, and no token comes."""
    scene.engine_host.run(["kill", "-STOP", str(scene.engine()["children"][0])])


def doom(scene: Scene) -> None:
    """Kill the engine, and have each next one end while it loads."""
    scene.engine_host.run(["touch", f"{PLACE}/doomed"])
    kill_engine(scene)


def reprieve(scene: Scene) -> None:
    scene.engine_host.run(["rm", "-f", f"{PLACE}/doomed"])


def kill_supervisor(scene: Scene) -> None:
    status = scene.engine_host.run(["cat", f"/proc/{scene.engine()['pid']}/status"]).stdout
    (parent,) = re.findall(r"^PPid:\s+(\d+)$", status, re.MULTILINE)
    scene.engine_host.run(["kill", "-9", parent])


def clean_tmp_and_kill_engine(scene: Scene) -> None:
    clean_tmp(scene)
    kill_engine(scene)


# How a host is set up

NOISE = """
echo 'Welcome to @fsd1 {"this": "is no answer"'
printf 'and a line without an end '
echo 'bash: warning: something is odd' >&2
"""
PROFILES = (".bashrc", ".profile", ".bash_profile", ".bash_logout", ".cshrc")


def greet(scene: Scene) -> None:
    for name in PROFILES[:-1]:
        scene.host.run(f"cat >/root/{name}", stdin=NOISE)
    banner = "Banner /run/banner\n"
    scene.host.run("cat >/run/banner", stdin="#" * 79 + "\n# Property of @fsd1 {} Inc.\n")
    scene.host.run(f"mkdir -p /run/sshd; sed '1i {banner.strip()}' {scene.lab.slot.directory}/sshd_config >/run/conf")
    restart_sshd(scene, "/run/conf")


def be_quiet(scene: Scene) -> None:
    scene.host.run("rm -f " + " ".join(f"/root/{name}" for name in PROFILES))
    scene.host.run("kill $(cat /run/second-sshd)", check=False)
    use_port(scene, None)


def restart_sshd(scene: Scene, config: str) -> None:
    """Start a second sshd with this configuration, which the inventory names from now on."""
    key = scene.host.directory / "host_key"
    scene.host.run(f"/usr/sbin/sshd -f {config} -p 2222 -h {key} -o PidFile=/run/second-sshd")
    use_port(scene, 2222)


def use_port(scene: Scene, port: int | None) -> None:
    content = yaml.safe_load(scene.desk.inventory.read_text())
    host = content["all"]["hosts"][scene.host.name]
    host.pop("ansible_port", None)
    known_hosts = scene.desk.directory / "known_hosts"
    lines = scene.lab.known_hosts.read_text()
    if port is not None:
        host["ansible_port"] = port
        lines += lines.replace(f"{scene.host.address} ", f"[{scene.host.address}]:{port} ")
    known_hosts.write_text(lines)
    content["all"]["vars"]["ansible_ssh_common_args"] = f"-o UserKnownHostsFile={known_hosts}"
    scene.desk.inventory.write_text(yaml.safe_dump(content, sort_keys=False))


def login_shell(shell: str) -> Callable[[Scene], None]:
    def strike(scene: Scene) -> None:
        changed = f"sed 's|^\\(root:.*:\\)[^:]*$|\\1{shell}|' /etc/passwd >/run/passwd"
        scene.host.run(f"test -x {shell} && {changed} && mount --bind /run/passwd /etc/passwd")

    return strike


def own_passwd(scene: Scene) -> None:
    scene.host.run("umount /etc/passwd")


def share_home(scene: Scene) -> None:
    """Mount the other host's home; what a host borrows from the machine lies below its home too, and is put back."""
    other, here = scene.lab.hosts[1 - scene.at], scene.host.directory
    borrowed = enumerate(hidden(scene.lab.mounts))
    again = [f"mount --bind {here}/borrowed/{at} {path}" for at, path in borrowed if path.startswith("/root/")]
    scene.host.run(" && ".join([f"mount --bind {other.directory}/home /root", *again]))


def own_home(scene: Scene) -> None:
    scene.host.run("umount -l /root")


def hide_python(scene: Scene) -> None:
    pids = "for each in $(type -ap python3 | sort -u); do readlink -f $each; done | sort -u"
    paths = scene.host.run(pids).stdout.split()
    scene.host.run(": >/run/no-python; " + "; ".join(f"mount --bind /run/no-python {path}" for path in paths))
    scene.kept["python"] = paths


def show_python(scene: Scene) -> None:
    scene.host.run("; ".join(f"umount {path}" for path in scene.kept.pop("python")))


def hide_processes(scene: Scene) -> None:
    """Log in as a user who sees only their own processes, at a second sshd that sets root's PATH."""
    host, home = scene.host, "/run/fsd-user"
    host.run(
        f"mkdir -p {home} && cp -a /root/.ssh {home} && chown -R 65500:65500 {home} && chmod 700 {home} &&"
        f" chmod 711 /root &&"  # what hosts borrow lies there
        f" (cat /etc/passwd; echo 'fsd-user:x:65500:65500::{home}:/bin/bash') >/run/passwd &&"
        " mount --bind /run/passwd /etc/passwd && mount -o remount,hidepid=2 /proc &&"
        f" (cat {scene.lab.slot.directory}/sshd_config; echo SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/bin:/bin)"
        " >/run/conf"
    )
    restart_sshd(scene, "/run/conf")
    content = yaml.safe_load(scene.desk.inventory.read_text())
    content["all"]["hosts"][host.name]["ansible_user"] = "fsd-user"
    scene.desk.inventory.write_text(yaml.safe_dump(content, sort_keys=False))


def show_processes(scene: Scene) -> None:
    scene.start("cleanup").end(0)  # as this user: nobody else may
    scene.host.run("mount -o remount,hidepid=0 /proc; kill $(cat /run/second-sshd); umount /etc/passwd", check=False)
    scene.host.run("rm -rf /run/fsd-user; chmod 700 /root")
    content = yaml.safe_load(scene.desk.inventory.read_text())
    content["all"]["hosts"][scene.host.name].pop("ansible_user")
    scene.desk.inventory.write_text(yaml.safe_dump(content, sort_keys=False))
    use_port(scene, None)


UNREACHED = r"node\d: .*(connection was lost|no answer|cannot connect|SSH to|(did|has) not answer)"

FAULTS = (
    Fault("operator killed", kill_operator, (*RUNS, *STOPS), always(-9), why_not=NO_COMMAND),
    Fault("Ctrl-C twice", interrupt_twice, (*RUNS, *STOPS), always(130), "interrupted", why_not=NO_COMMAND),
    Fault("operator's disk full", small_full_disk_here, (WHOLE,), always(1, 2), r"small-disk.*No space left",
          undo=empty_disk_here),
    Fault("operator's disk fills", fill_disk_here, (*RUNS, READY), lambda stage: {1, 2} if stage == PROBED else {0},
          r"small-disk.*No space left", prepare=small_disk_here, undo=empty_disk_here,
          why_not=dict.fromkeys(STOPS, "stop writes nothing here")),
    Fault("SSH connection dropped", drop_connections, MOMENTS, run_or_stop({3}, {0, 3}), UNREACHED),
    Fault("cable cut", cut, (WHOLE, *MOMENTS), always(3), UNREACHED, undo=join, lost=True, within=120),
    Fault("cable cut and joined", cut_and_join, MOMENTS, always(0)),
    Fault("sshd never answers", silence, (WHOLE, *MOMENTS), always(3), UNREACHED, undo=end_silence, lost=True,
          within=150),
    Fault("host at 1 kB/s", slow_down, (WHOLE, LOADING), always(0, 1, 3, 5), r"node\d: ",
          undo=speed_up, within=240,
          why_not=dict.fromkeys((PROBED, UPLOADING, RAY, READY, *STOPS), "as loading: minutes each")),
    Fault("power loss", lose_power, MOMENTS, always(3), UNREACHED, undo=power_on, lost=True, within=120),
    Fault("host rebooted", reboot, MOMENTS, run_or_stop({3}, {0, 3}), UNREACHED, within=120, spoiled=True),
    Fault("host's disk full", small_full_disk, (WHOLE,), always(1, 4), r"node\d: .*(No space left|can't write)",
          undo=empty_small_disk, after=own_disk),
    Fault("host's disk fills", fill_small_disk, MOMENTS,
          lambda stage: {1} if stage == UPLOADING else {0, 1, 4, 5} if stage in RUNS else {0, 1},
          r"node\d.*No space left", prepare=small_disk, undo=empty_small_disk, after=own_disk),
    Fault("home read-only", home_read_only, (WHOLE, *MOMENTS),
          lambda stage: {1, 4} if stage == WHOLE else {0, 1, 4, 5}, r"node\d.*(Read-only|can't write)",
          undo=home_writable),
    Fault("clock jump (faked in the record)", clock_jumps, (LOADING, READY, *STOPS), always(0),
          why_not={PROBED: "no record yet", UPLOADING: "no record yet", RAY: "as loading"}),
    Fault("/tmp cleaned under Ray", clean_tmp, (RAY, LOADING, READY, *STOPS), always(0, 1), r"node\d: ",
          why_not=NOTHING_YET),
    Fault("raylet killed", kill_daemon("raylet"), (RAY, LOADING, READY, *STOPS), run_or_stop({1, 5}, {0}),
          r"node\d.*raylet|missing", held=True, spoiled=True, within=90, why_not=NOTHING_YET),
    Fault("GCS killed", kill_daemon("gcs_server"), (RAY, LOADING, READY, ENGINES_END), run_or_stop({1, 5}, {0}),
          r"node\d.*(gcs_server|cannot be reached|GCS)", held=True, spoiled=True, within=90,
          why_not={**NOTHING_YET, RAY_ENDS: "it has ended by itself"}),
    Fault("engine killed", kill_engine, (LOADING, READY, ENGINES_END), run_or_stop({5}, {0}), r"node1.*ended",
          held=True, spoiled=True, why_not={**NOTHING_YET, RAY: "no engine yet", RAY_ENDS: "no engine any more"}),
    Fault("a worker process killed", kill_worker, (LOADING, READY), always(5),
          r"node1.*(EngineCore|ended)", spoiled=True, held=True,
          why_not={**NOTHING_YET, RAY: "no engine yet", ENGINES_END: "it ends of SIGTERM itself",
                   RAY_ENDS: "no engine any more"}),
    Fault("engine hangs", hang, (), always()),
    Fault("engine dies while it loads", doom, (), always(), undo=reprieve),
    Fault("/tmp cleaned, engine killed", clean_tmp_and_kill_engine, (), always()),
    Fault("supervisor killed", kill_supervisor, (), always()),
    Fault("banner and noisy profile", greet, (WHOLE,), always(0), undo=be_quiet),
    Fault("login shell dash", login_shell("/bin/dash"), (WHOLE,), always(0), undo=own_passwd),
    Fault("login shell fish", login_shell("/usr/bin/fish"), (WHOLE,), always(0), undo=own_passwd),
    Fault("login shell tcsh", login_shell("/usr/bin/tcsh"), (WHOLE,), always(0), undo=own_passwd),
    Fault("home shared by both hosts", share_home, (WHOLE,), always(0), after=own_home),
    Fault("no Python", hide_python, (WHOLE,), always(1), r"node1: .*[Pp]ython", undo=show_python),
    Fault("/proc hides others", hide_processes, (WHOLE,), always(0), undo=show_processes),
)  # fmt: skip
"""Faults of a whole cell strike before `run` is typed: how a host is set up does not change in the middle of things."""
