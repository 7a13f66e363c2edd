"""Whether a server hangs, judged by samples on a clock that the tests turn."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from flagscale_deploy.remote.engine.metrics import Sample
from flagscale_deploy.remote.supervisor.hang import POLL_SECONDS, Judge, Limits
from flagscale_deploy.remote.supervisor.progress import LONGEST_STEPS

HANG, INTERVAL = 600.0, 60.0
LIMITS = Limits(HANG, INTERVAL)
WALL = time.mktime((2026, 11, 30, 14, 0, 0, 0, 0, -1))


@dataclass
class Server:
    """A server of engines as its detector sees it: polled every 5 s, probed when it is quiet."""

    engines: dict[str, Sample] = field(default_factory=lambda: {"0": Sample(0, 0, (0, 0, 0))})
    limits: Limits = LIMITS
    now: float = 1000.0
    probes: list[tuple[str, float]] = field(default_factory=list)
    answers: bool = True
    why: str = ""
    silent: bool = False

    def __post_init__(self) -> None:
        self.judge = Judge(self.limits)
        self.poll()

    def work(self, running: float = 1, waiting: float = 0, engine: str = "0") -> None:
        self.engines[engine] = self.engines[engine]._replace(running=running, waiting=waiting)

    def move(self, engine: str = "0") -> None:
        steps, generated, prompt = self.engines[engine].tokens
        self.engines[engine] = self.engines[engine]._replace(tokens=(steps + 1, generated + 1, prompt))

    def poll(self) -> str:
        self.judge.look(self.now)
        if self.silent:
            self.judge.failed(self.now, "timed out")
        else:
            self.judge.saw(self.now, self.engines)
        for engine, part in self.judge.to_probe(self.now).items():
            self.probes.append((engine, self.now))
            part.asked(self.now)
            if self.answers:
                part.answered(self.now)
            elif self.why:
                part.failed(self.now, self.why)
        return self.judge.problem(self.now, WALL + self.now - 1000.0)

    def run(self, seconds: float, step: float = 0.0) -> str:
        """Let time go by, with a step of the engine every `step` seconds; return the first problem."""
        end, moved = self.now + seconds, self.now
        while self.now < end:
            self.now += POLL_SECONDS
            if step and self.now - moved >= step:
                self.move()
                moved = self.now
            problem = self.poll()
            if problem:
                return problem
        return ""


def test_work_without_a_token_is_a_hang_after_its_time_and_not_before() -> None:
    server = Server(answers=False)
    server.work(2)
    assert server.run(300, step=5) == ""
    began = server.now
    problem = server.run(2 * HANG)
    assert problem == "hung 10 min: 2 requests running and no token since 14:05:00"
    assert HANG <= server.now - began <= HANG + POLL_SECONDS


def test_requests_that_only_wait_are_work() -> None:
    server = Server(answers=False)
    server.work(0, 1)
    assert "1 request waiting and no token" in server.run(2 * HANG)


def test_an_hour_without_work_is_no_hang_and_has_a_probe_a_minute() -> None:
    server = Server()
    assert server.run(3600) == ""
    assert 55 <= len(server.probes) <= 60
    assert server.judge.longest < HANG


def test_an_hour_without_work_and_probes_is_none_either() -> None:
    server = Server(limits=Limits(HANG, 0.0), answers=False)
    assert server.run(3600) == ""
    assert server.probes == []


@pytest.mark.parametrize("prefill", [75.0, 100.0, 150.0])
def test_a_slow_prefill_is_no_hang(prefill: float) -> None:
    """Steps of 50 s, prefills of up to three times that among them, and a hang time of 1.5 times the longest step."""
    server = Server(limits=Limits(1.5 * prefill, INTERVAL), answers=False)
    server.work()
    for _ in range(20):
        assert server.run(500, step=50) == ""
        assert server.run(prefill) == ""
        server.move()


def test_no_probe_disturbs_an_engine_that_makes_tokens() -> None:
    server = Server(answers=False)
    server.work()
    assert server.run(3600, step=30) == ""
    assert server.probes == []


def test_the_limit_is_no_less_than_one_and_a_half_times_the_longest_step() -> None:
    """Hang time below the longest step that was seen to end."""
    server = Server(limits=Limits(400.0, 0.0))
    server.work()
    assert server.run(390) == ""
    server.move()
    assert server.run(5) == ""
    longest = server.judge.longest
    assert 390 <= longest <= 400
    assert server.run(LONGEST_STEPS * longest - 2 * POLL_SECONDS) == ""
    assert server.run(4 * POLL_SECONDS).startswith("hung ")
    again = Judge(server.limits, longest)
    assert again.longest == longest, "what one run of a server showed holds for the next"


def test_a_paused_client_is_no_hang() -> None:
    """Its engine has done all that there is to do; the reply waits in the front end."""
    server = Server()
    server.work()
    assert server.run(60, step=5) == ""
    server.work(0)
    assert server.run(3600) == ""


@pytest.mark.parametrize("why", ["", "HTTP 500: engine is dead"])
def test_an_idle_engine_that_answers_no_probe_hangs(why: str) -> None:
    server = Server()
    assert server.run(300) == ""
    server.answers, server.why = False, why
    problem = server.run(2 * HANG)
    reason = f" ({why})" if why else ""
    assert problem.startswith(f"hung 10 min: no token for a probe{reason} since ")
    assert server.now <= 1300 + INTERVAL + HANG + 2 * POLL_SECONDS


def test_one_probe_that_fails_is_none() -> None:
    server = Server()
    server.run(100)
    server.answers, server.why = False, "HTTP 500"
    server.run(INTERVAL)
    server.answers = True
    assert server.run(2 * HANG) == ""


def test_a_request_that_waits_for_something_else_is_no_hang_while_probes_are_answered() -> None:
    """As on an engine of decode whose cache was not transferred: the engine itself goes on."""
    server = Server()
    server.work(0, 3)
    assert server.run(3 * HANG) == ""


def test_a_dead_data_parallel_rank_is_named_while_the_others_work() -> None:
    server = Server({"0": Sample(0, 0, (0, 0, 0)), "1": Sample(0, 0, (0, 0, 0))})
    server.work(4)
    server.answers = False
    problem = ""
    while not problem and server.now < 3000:
        problem = server.run(POLL_SECONDS, step=5)
    assert problem.startswith("hung 10 min: engine 1: no token for a probe since ")
    assert {engine for engine, _ in server.probes} == {"1"}
    assert [server.judge.data_rank(engine) for engine in ("0", "1")] == [0, 1]


@pytest.mark.parametrize("engines", [{"": 0}, {"0": 0}, {"2": 0, "3": 0}])
def test_an_engine_is_asked_by_number_only_where_the_server_has_all_of_them(engines: dict[str, int]) -> None:
    server = Server({name: Sample(0, 0, (0, 0, 0)) for name in engines})
    assert [server.judge.data_rank(name) for name in engines] == [None] * len(engines)


def test_a_front_end_that_does_not_answer_hangs() -> None:
    server = Server(limits=Limits(HANG, 0.0))
    server.silent = True
    assert server.run(2 * HANG).startswith("hung 10 min: no reply to /metrics (timed out) since ")
    server = Server(limits=Limits(HANG, 0.0))
    server.silent = True
    assert server.run(HANG - 10) == ""
    server.silent = False
    assert server.run(3600) == ""


def test_an_engine_whose_counters_are_not_shown_is_not_judged() -> None:
    """A probe that waits behind ten thousand requests, and no counter that tells of them."""
    server = Server(answers=False)
    server.work(2)
    assert server.run(HANG / 2) == ""
    server.engines = {}
    assert server.run(3600) == ""
    assert len(server.probes) <= HANG / 2 / INTERVAL + 1


def test_an_engine_that_was_put_to_sleep_is_left_alone() -> None:
    server = Server(answers=False)
    server.engines["0"] = Sample(1, 1, (0, 0, 0), awake=False)
    assert server.run(3600) == ""
    assert server.probes == []


def test_time_in_which_the_supervisor_itself_was_stopped_does_not_count() -> None:
    server = Server(answers=False)
    server.work()
    assert server.run(300) == ""
    server.now += 3600
    assert server.run(200) == ""
    assert server.run(200).startswith("hung ")


def test_the_next_look_is_at_the_limit() -> None:
    server = Server(limits=Limits(20.0, 0.0))
    assert server.judge.next_look(server.now) == 2.5
    server.work()
    server.poll()
    assert server.judge.next_look(server.now + 19) == 1.0
    assert Judge(Limits(HANG, 0.0)).next_look(0.0) == POLL_SECONDS
