"""The command line: words in, one function of `api` called, pictures out, an exit status."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from flagscale_deploy import __version__

if TYPE_CHECKING:
    from flagscale_deploy.console import Console
    from flagscale_deploy.request import Request

F = TypeVar("F", bound=Callable[..., Any])

_INVENTORY = click.option(
    "-i",
    "--inventory",
    metavar="FILE",
    help="Hosts: Ansible YAML or INI, short YAML, FlagScale hostfile. Default: runner.hostfile, else this machine.",
)
_CONFIG = click.option("-c", "--config", metavar="FILE", help="Serve YAML, or a Hydra experiment file.")
_NAME = click.option(
    "--name", help="The deployment's name. Default: experiment.exp_name, else the configuration's file name."
)
_LIMIT = click.option("--limit", metavar="PATTERN", help="Only these hosts: an Ansible host pattern.")
_FORKS = click.option("--forks", type=click.IntRange(1), default=64, show_default=True, help="Hosts at the same time.")
_OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
_TEMPLATES = click.option(
    "--templates",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Script templates that take the place of the packaged ones.",
)
_FORCE = click.option("--force", is_flag=True, help="Hand out GPUs that are in use, too.")
_LOCK = click.option(
    "--lock-timeout",
    type=float,
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for another command on the same deployment.",
)
_QUIET = click.option("-q", "--quiet", is_flag=True, help="Only results and errors.")
_VERBOSE = click.option(
    "-v", "--verbose", is_flag=True, help="Progress as plain lines, tracebacks of this tool's own errors."
)
_COLOR = click.option("--no-color", is_flag=True, help="No colours (also: NO_COLOR in the environment).")


def _options(*chosen: Callable[[Any], Any]) -> Callable[[F], F]:
    """Apply options in the order they are listed; those every command has come last."""

    def apply(function: F) -> F:
        for option in reversed((*chosen, _QUIET, _VERBOSE, _COLOR)):
            function = option(function)
        return function

    return apply


_HOSTS = (_INVENTORY, _LIMIT, _FORKS)
_DEPLOYMENT = (_INVENTORY, _CONFIG, _NAME, _LIMIT, _FORKS, _OVERRIDES)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="flagscale-deploy")
def cli() -> None:
    """Serve large models with vLLM over Ray on machines that SSH reaches: one inventory, one serve YAML, one command.

    KEY=VALUE words after the options override the configuration, as in: run -i hosts.yaml -c qwen.yaml deploy.port=9000

    \b
    Exit status: 0 done, 1 failed on a host, 2 bad input, 3 a host cannot be reached or trusted, 4 the check says no,
    5 started but never ready (rolled back), 6 locked by another run, 130 interrupted.
    """


def _command(function: F) -> F:
    """Errors become messages and exit statuses; SIGTERM interrupts as Ctrl-C does."""

    @functools.wraps(function)
    def guarded(*, quiet: bool, verbose: bool, no_color: bool, **words: Any) -> None:
        import os

        from flagscale_deploy.console import Console
        from flagscale_deploy.errors import DeployError

        console = Console(quiet=quiet, verbose=verbose, color=not no_color and not os.environ.get("NO_COLOR"))
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        try:
            code = function(console, **words)
        except DeployError as error:
            code = _report(console, error, bool(words.get("as_json")), words.get("name"))
        except KeyboardInterrupt:
            console.error("interrupted")
            code = 130
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: nothing more to flush
            code = 1
        except Exception as error:
            if verbose:
                raise
            console.error(
                f"✗ an error of this tool: {type(error).__name__}: {error}\n    → again with -v for the traceback"
            )
            code = 1
        sys.exit(code or 0)

    return guarded  # type: ignore[return-value]  # the same function to click


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _report(console: Console, error: Exception, as_json: bool, name: str | None) -> int:
    from flagscale_deploy.deploy import RunFailedError, failure_json
    from flagscale_deploy.errors import DeployError
    from flagscale_deploy.views.run import show_run_failure

    assert isinstance(error, DeployError)
    if isinstance(error, RunFailedError):
        if as_json:
            console.json(
                {"schema": 1, "verdict": "failed", "folder": str(error.folder.path), **failure_json(error.failure)}
            )
        show_run_failure(console, error, name or error.deployment)
        return error.exit_code
    if as_json:
        console.json({"schema": 1, "error": str(error), "exit_code": error.exit_code})
    console.error(f"✗ {error}")
    return error.exit_code


def _request(words: dict[str, Any]) -> Request:
    """Take what belongs to a request out of a command's words."""
    from flagscale_deploy.request import Options, load_request

    names = ("inventory", "config", "name", "limit", "forks", "overrides")
    return load_request(Options(**{name: words.pop(name) for name in names if name in words}))


@cli.command()
@_options(*_DEPLOYMENT, _TEMPLATES, _FORCE, _LOCK, _JSON)
@click.option("--keep-on-failure", is_flag=True, help="Leave what was started as it is when the run fails.")
@_command
def run(console: Console, *, as_json: bool, lock_timeout: float, **words: Any) -> int:
    """Check, plan, start, and wait until a completion has come back."""
    from flagscale_deploy import api
    from flagscale_deploy.views import run as view

    request = _request(words)
    with console.progress(f"run {request.deployment}") as progress:
        result = api.run(request, lock_wait=lock_timeout, redactor=console.redactor, say=progress, **words)
    if as_json:
        console.json(view.run_json(result))
    else:
        view.show_run(console, result)
    return 0


@cli.command()
@_options(*_DEPLOYMENT, _TEMPLATES, _FORCE, _JSON)
@click.option("--offline", is_flag=True, help="Contact no host; GPU counts come from the inventory.")
@click.option(
    "-o", "--output", metavar="DIR", type=click.Path(path_type=Path), help="Write the scripts to DIR/<host>/."
)
@click.option("--scripts", is_flag=True, help="Print the scripts, too.")
@_command
def plan(console: Console, *, as_json: bool, output: Path | None, scripts: bool, **words: Any) -> int:
    """Show what `run` would do, and write the very scripts it would send."""
    from flagscale_deploy import api
    from flagscale_deploy.folder import write_scripts
    from flagscale_deploy.plan.contract import plan_json
    from flagscale_deploy.views import plan as view

    request = _request(words)
    with console.progress("plan") as progress:
        made = api.plan(request, say=progress, **words)
    if as_json:
        console.json(plan_json(made))
    else:
        view.show_plan(console, made, scripts)
    if output is not None:
        written = write_scripts(output, made.scripts)
        console.note(f"{len(written)} scripts written to {output}")
    return 0


@cli.command()
@_options(*_DEPLOYMENT, _TEMPLATES, _FORCE, _JSON)
@_command
def check(console: Console, *, as_json: bool, **words: Any) -> int:
    """Look at every host and report every problem at once; start nothing."""
    from flagscale_deploy import api
    from flagscale_deploy.views import hosts as view

    request = _request(words)
    with console.progress("check") as progress:
        report = api.check(request, say=progress, **words)
    if as_json:
        console.json(view.check_json(report))
    else:
        view.show_check(console, report)
    return report.exit_code


@cli.command()
@_options(*_DEPLOYMENT, _JSON)
@click.option("-w", "--watch", is_flag=True, help="Look again every few seconds until interrupted.")
@click.option("--interval", type=click.FloatRange(0.5), default=5.0, show_default=True, metavar="SECONDS")
@_command
def status(console: Console, *, as_json: bool, watch: bool, interval: float, **words: Any) -> int:
    """Hosts, Ray nodes, GPUs, instances and endpoints as they really are."""
    import time

    from flagscale_deploy import api
    from flagscale_deploy.views import status as view

    request = _request(words)
    while True:
        found = api.status(request)
        if as_json:
            console.json(found.json())
        else:
            if watch and console.out.is_terminal:
                console.out.clear()
            view.show_status(console, found)
        if not watch:
            return found.exit_code
        time.sleep(interval)


@cli.command()
@_options(*_DEPLOYMENT, _JSON)
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines of all hosts.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Last lines of each file. Default: 50, all with -o.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(["engine", "script", "ray", "ray-worker"]),
    help="Default: engine and script; all with -o.",
)
@click.option("--all", "every", is_flag=True, help="Ray's own logs, too.")
@click.option(
    "-o", "--output", metavar="DIR", type=click.Path(path_type=Path), help="Collect all logs into DIR/<host>/."
)
@_command
def logs(console: Console, *, as_json: bool, output: Path | None, every: bool, **words: Any) -> int:
    """Show, follow or collect engine, script and Ray logs of all hosts."""
    from flagscale_deploy import api
    from flagscale_deploy.logs import KINDS
    from flagscale_deploy.views import logs as view

    request = _request(words)
    if output is not None:
        return view.show_collected(console, api.collect(request, output), as_json)
    kinds = list(words.pop("kinds")) or (list(KINDS) if every else ["engine", "script"])
    tail = 50 if words["tail"] is None else words["tail"]
    show = view.line_printer(console, [host.name for host in request.inventory.hosts], as_json)
    return view.show_unread(console, api.follow(request, show, tail=tail, follow=words["follow"], kinds=kinds))


@cli.command()
@click.argument("text")
@_options(*_DEPLOYMENT, _JSON)
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True)
@click.option("--temperature", type=click.FloatRange(0))
@click.option("--system", metavar="TEXT", help="A system message before it.")
@_command
def call(console: Console, *, text: str, as_json: bool, system: str | None, **words: Any) -> int:
    """Send a chat completion to the deployment, through SSH."""
    from flagscale_deploy import api

    request = _request(words)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    parameters = {name: value for name, value in words.items() if value is not None}
    answer = api.call(request, messages, **parameters)
    if as_json:
        console.json(answer)
    else:
        console.print(answer["choices"][0]["message"]["content"] or "")
    return 0


@cli.command()
@_options(*_DEPLOYMENT, _LOCK, _JSON)
@_command
def stop(console: Console, *, as_json: bool, lock_timeout: float, **words: Any) -> int:
    """End what the deployment started, verify that it is gone, keep its logs."""
    from flagscale_deploy import api

    return _end(console, api.stop, _request(words), "stop", lock_timeout, as_json)


@cli.command()
@_options(*_DEPLOYMENT, _LOCK, _JSON)
@_command
def cleanup(console: Console, *, as_json: bool, lock_timeout: float, **words: Any) -> int:
    """Stop, then remove what was left on the hosts: state, logs, Ray's temporary directories."""
    from flagscale_deploy import api

    return _end(console, api.cleanup, _request(words), "cleanup", lock_timeout, as_json)


def _end(console: Console, act: Any, request: Request, title: str, lock_timeout: float, as_json: bool) -> int:
    from flagscale_deploy.views import stop as view

    with console.progress(f"{title} {request.deployment}") as progress:
        report = act(request, lock_wait=lock_timeout, say=progress)
    if as_json:
        console.json(view.stop_json(report))
    else:
        view.show_stop(console, report)
    return int(report.exit_code)


@cli.command()
@_options(*_DEPLOYMENT, _TEMPLATES, _JSON)
@click.option(
    "--prompt", "prompts", multiple=True, metavar="TEXT", help="Ask this (may be given often). Default: one question."
)
@click.option(
    "--expect",
    "expectations",
    multiple=True,
    metavar="REGEX",
    help="What the answer to the prompt of the same position has to match.",
)
@click.option("--min-tokens", type=click.IntRange(1), default=1, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True)
@click.option(
    "--junit", metavar="FILE", type=click.Path(path_type=Path), help="Write JUnit XML: a test case per phase and host."
)
@click.option(
    "--artifacts", metavar="DIR", type=click.Path(path_type=Path), default=Path("smoke-artifacts"), show_default=True
)
@_command
def smoke(console: Console, *, as_json: bool, junit: Path | None, artifacts: Path, **words: Any) -> int:
    """For CI on bare metal: check, run, prompts, status, logs, stop, proof that nothing is left. Always takes down."""
    from flagscale_deploy import smoke as smokes
    from flagscale_deploy.junit import write_junit
    from flagscale_deploy.views import smoke as view

    request = _request(words)
    prompts = view.prompts(words["prompts"], words["expectations"], words["min_tokens"], words["max_tokens"])
    with console.progress(f"smoke {request.deployment}") as progress:
        result = smokes.smoke(
            request, prompts, artifacts, templates=words["templates"], redactor=console.redactor, say=progress
        )
    if junit is not None:
        write_junit(result, junit, console.redactor.redact)
    if as_json:
        console.json(result.json())
    else:
        view.show_smoke(console, result)
    return result.exit_code


@cli.command(name="exec", context_settings={"ignore_unknown_options": True})
@_options(*_HOSTS, _JSON)
@click.option("--timeout", type=click.FloatRange(0.1), default=3600.0, show_default=True, metavar="SECONDS")
@click.argument("command", nargs=-1, required=True)
@_command
def exec_(console: Console, *, as_json: bool, command: tuple[str, ...], timeout: float, **words: Any) -> int:
    """Run a command on all hosts in parallel: exec -i hosts.yaml -- uptime"""
    from flagscale_deploy import api
    from flagscale_deploy.views import hosts as view

    results = api.execute_everywhere(_request(words), command, timeout=timeout)
    return view.show_outcomes(console, results, as_json)


@cli.command()
@_options(*_HOSTS, _JSON)
@_command
def hosts(console: Console, *, as_json: bool, **words: Any) -> int:
    """The inventory, as it was understood; contacts no host."""
    from flagscale_deploy.inventory.listing import hosts_json
    from flagscale_deploy.views import hosts as view

    inventory = _request(words).inventory
    if as_json:
        console.json(hosts_json(inventory))
    else:
        view.show_inventory(console, inventory)
    return 0


def main() -> None:
    """The console script."""
    cli(prog_name="flagscale-deploy")
