"""Resolve hosts as the operator's own OpenSSH does: `ssh -G` is asked, in parallel, and its answers are remembered.

It is not asked where no configuration file sets anything that a connection depends on. Where there is no ssh program,
Paramiko's reader of these files takes its place.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from flagscale_deploy.support.shell import join
from flagscale_deploy.transport import ssh_config_fallback
from flagscale_deploy.transport.ssh_config_cache import SshConfigCache, default_cache
from flagscale_deploy.transport.ssh_config_files import RELEVANT, SYSTEM, ConfigFile, read_config
from flagscale_deploy.transport.ssh_config_groups import Groups
from flagscale_deploy.transport.ssh_config_home import with_home
from flagscale_deploy.transport.ssh_notes import NOTES
from flagscale_deploy.transport.ssh_settings import (
    DEFAULT_KEYS,
    Answer,
    ConfigProblem,
    Destination,
    Settings,
    home,
    settings_of,
)

ASK_SECONDS = 60.0
"""How long `ssh -G` may take for one chunk of hosts: `Match exec` and CanonicalizeHostname may ask the network."""
CHUNK = 32
"""How many hosts one shell asks for: to start a process from a large Python process costs more than from a shell."""


EXPANDED_SINCE = {"identityagent": (8, 3), "userknownhostsfile": (0, 0)}
"""The version of OpenSSH since which `ssh -G` prints values of a keyword with their tokens expanded. Before 8.5,
UserKnownHostsFile has no tokens."""
OWN = "%"
"""Stands for the name itself, or for its own HostName, in the answer of a group."""


class Resolver:
    """Resolves destinations; `expect` those that will follow, so that they are asked for together.

    `program` is the ssh to ask, None for Paramiko's reader.
    """

    def __init__(self, program: str | None, cache: SshConfigCache) -> None:
        self._program, self._cache = program, cache
        self._lock = threading.Lock()
        self._expected: dict[Destination, None] = {}
        self._sources: dict[str | None, Source] = {}

    def expect(self, destination: Destination) -> None:
        """Note a destination that is going to be resolved."""
        with self._lock:
            self._expected[destination] = None

    def resolve(self, destination: Destination) -> Settings:
        """Return the settings for a destination. Raises ConfigProblem."""
        return settings_of(destination, self.answer(destination))

    def answer(self, destination: Destination) -> Answer:
        """Return the values of a destination as `ssh -G` prints them. Raises ConfigProblem."""
        with self._lock:
            source = self.source(destination.config_file)
        if not (source.groups.matter or destination.options):
            return _defaults(destination)
        if self._program is None:
            return ssh_config_fallback.answer(destination, source.files)
        try:
            if source.groups.vary:
                return self._ask([destination], source)[destination]
            with self._lock:
                if source.key(destination) not in source.answers:
                    self._ask_for_all(destination, source)
                return source.answer(destination)
        except ConfigProblem:
            if _version(self._program) is not None:
                raise
            NOTES.info("%s is not OpenSSH's, and is asked no more: Paramiko's reader takes its place", self._program)
            self._program = None
            return ssh_config_fallback.answer(destination, source.files)

    def _ask_for_all(self, destination: Destination, source: Source) -> None:
        """Ask for a destination and those expected beside it, once for each group of names that resolve alike."""
        source.answers.update(self._cache.load(source.state) if not source.answers else {})
        missing = {source.key(destination): destination}
        together = [expected for expected in self._expected if expected.config_file == destination.config_file]
        for expected in together:
            missing.setdefault(source.key(expected), expected)
            del self._expected[expected]  # also where ssh refuses them: then each asks for itself
        missing = {key: expected for key, expected in missing.items() if key not in source.answers}
        if missing:
            answers = self._ask(list(missing.values()), source, but_for=destination)
            fresh = dict(source.common(expected, answer) for expected, answer in answers.items())
            source.answers.update(fresh)
            if source.is_unchanged():
                self._cache.add(source.state, fresh)

    def _ask(
        self, destinations: Sequence[Destination], source: Source, but_for: Destination | None = None
    ) -> dict[Destination, Answer]:
        """Ask for destinations. Raises ConfigProblem where ssh refuses one; with `but_for`, only for that one."""
        program, file = self._program or "ssh", source.file_words
        commands = {destination: join([program, *file, "-G", *destination.words]) for destination in destinations}
        chunks = [destinations[at : at + CHUNK] for at in range(0, len(destinations), CHUNK)]
        with ThreadPoolExecutor(min(len(chunks), os.cpu_count() or 1), "ssh-config") as pool:
            outputs = pool.map(lambda chunk: _run([commands[destination] for destination in chunk]), chunks)
            replies = [reply for chunk in outputs for reply in chunk]
        answers = {}
        for destination, (code, output) in zip(destinations, replies, strict=True):
            if code == 0:
                answers[destination] = _parsed(output, program)
            elif but_for in (None, destination):
                raise ConfigProblem(f"ssh cannot use its configuration for {destination.alias}: {_reason(output)}")
        return answers

    def source(self, config_file: str | None) -> Source:
        """Return the files of one `-F`, or of the user and the system."""
        if config_file not in self._sources:
            source = self._sources[config_file] = Source(config_file, self._program)
            reader = f"{self._program} -G" if self._program else "Paramiko's reader (there is no ssh program here)"
            names = ", ".join(file.path for file in source.files) or "none"
            if source.groups.matter:
                NOTES.info("SSH configuration: %s, read by %s", names, reader)
            else:
                NOTES.info("SSH configuration: nothing in it concerns us (files: %s)", names)
        return self._sources[config_file]


class Source:
    """The configuration files of one `-F`, or of the user and the system, with the answers that they lead to."""

    def __init__(self, config_file: str | None, program: str | None) -> None:
        self._config_file, self._program = config_file, program
        self.files = self._read()
        self.groups = Groups(self.files)
        self.state = self._state(self.files)
        self.answers: dict[str, Answer] = {}
        self._unlike: set[str] = set()

    def key(self, destination: Destination) -> str:
        """Return a text that destinations have in common for which ssh has the same answer, but for their names."""
        given = (destination.user, destination.port, destination.settings, destination.options)
        group = self.groups.of(destination.alias).key
        return f"{given!r} {f'={destination.alias}' if f'{given!r} {group}' in self._unlike else group}"

    def common(self, destination: Destination, answer: Answer) -> tuple[str, Answer]:
        """Return a destination's answer as that of its group, with a mark in place of what is its own."""
        group = self.groups.of(destination.alias)
        own = group.hostname or destination.alias.lower()
        if answer.get("hostname") == [own]:
            return self.key(destination), {**answer, "hostname": [OWN]}
        if group.hostname is not None:  # another HostName applies than was read here: ask for each name
            self._unlike.add(self.key(destination))
        return self.key(destination), answer

    def answer(self, destination: Destination) -> Answer:
        """Return what is known of a destination, from the answer of its group."""
        answer = self.answers[self.key(destination)]
        if answer.get("hostname") != [OWN]:
            return answer
        return {**answer, "hostname": [self.groups.of(destination.alias).hostname or destination.alias.lower()]}

    @functools.cached_property
    def file_words(self) -> tuple[str, ...]:
        """Return the words that make ssh read these files."""
        if self._config_file is not None:
            return ("-F", os.path.expanduser(self._config_file))
        return with_home(self.files, home())

    def is_unchanged(self) -> bool:
        """Return whether the files are as they were when they were read."""
        return self._state(self._read()) == self.state

    def _read(self) -> tuple[ConfigFile, ...]:
        folder = home()
        if self._config_file is not None:
            if self._config_file == "none":
                return ()
            file = read_config(os.path.expanduser(self._config_file), folder)
            if file is None:
                raise ConfigProblem(f"the SSH configuration file {self._config_file} cannot be read")
            return (file,)
        both = (read_config(f"{folder}/.ssh/config", folder), read_config(SYSTEM, folder, system=True))
        return tuple(file for file in both if file is not None)

    def _state(self, files: Iterable[ConfigFile]) -> str:
        """Return what the answers depend on: files, the ssh program, and who asks."""
        program = os.stat(self._program) if self._program else None
        version = (program.st_ino, program.st_size, program.st_mtime_ns) if program else ()
        states = [(file.path, file.state) for top in files for file in top.walk()]
        return repr((states, self._program, version, os.getuid(), home(), self._config_file))


@functools.cache
def this_resolver() -> Resolver:
    """Return this process's resolver."""
    return Resolver(shutil.which("ssh"), SshConfigCache(default_cache()))


def _defaults(destination: Destination) -> Answer:
    """Return what ssh answers where no file sets anything."""
    given = {"user": destination.user, "port": destination.port, "proxyjump": destination.proxy_jump}
    keys = [destination.identity_file] if destination.identity_file else DEFAULT_KEYS
    return {"identityfile": keys} | {keyword: [str(value)] for keyword, value in given.items() if value}


@functools.cache
def _version(program: str) -> tuple[int, int] | None:
    """Return the version of OpenSSH; None of a program that is none: others have the name ssh, and know no `-G`."""
    done = subprocess.run(
        [program, "-V"], stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_SECONDS, check=False
    )
    match = re.search(rb"openssh(?:\D{1,20}(\d{1,4})\.(\d{1,4}))?", done.stdout + done.stderr, re.IGNORECASE)
    return (int(match[1] or 0), int(match[2] or 0)) if match else None


def _parsed(output: str, program: str) -> Answer:
    """Return the values of what `ssh -G` printed. A percent sign that is no token any more is written as `%%`."""
    answer: dict[str, list[str]] = {}
    for line in output.splitlines():
        keyword, _, value = line.partition(" ")
        if keyword in RELEVANT:
            if "%" in value and (_version(program) or (0, 0)) >= EXPANDED_SINCE.get(keyword, (1 << 30, 0)):
                value = value.replace("%", "%%")
            answer.setdefault(keyword, []).append(value)
    return answer


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip() and "terminating" not in line]
    return lines[-1] if lines else "no reason given"


def _run(commands: Sequence[str]) -> list[tuple[int, str]]:
    """Run shell commands one after the other in one shell; return exit status and output of each."""
    script = "".join(f"{command} </dev/null 2>&1; printf '\\000%s\\000' $?\n" for command in commands)
    with subprocess.Popen(
        ["/bin/sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=ASK_SECONDS)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                problem = f"ssh -G did not answer within {ASK_SECONDS:g} s"
                raise ConfigProblem(problem, "look at Match exec and CanonicalizeHostname in ~/.ssh/config") from error
            raise
    parts = output.decode(errors="surrogateescape").split("\0")
    return [(int(code), text) for text, code in zip(parts[0::2], parts[1::2], strict=False)]
