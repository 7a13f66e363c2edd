"""What commands have in common: options, errors that become exit statuses, the request they are about."""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flagscale_deploy.cli import complete
from flagscale_deploy.cli.option_types import DURATION, MOST_FORKS, Number, Whole
from flagscale_deploy.support import interrupts
from flagscale_deploy.support.file_modes import kept_private

if TYPE_CHECKING:
    from flagscale_deploy.api.request import PlanOptions, Request
    from flagscale_deploy.errors import DeployError
    from flagscale_deploy.output.console import Console

F = TypeVar("F", bound=Callable[..., Any])
INVENTORY = click.option(
    "-i",
    "--inventory",
    metavar="FILE",
    type=click.Path(),
    help="Hosts: a file (Ansible YAML or INI, short YAML, hostfile), names (gpu01,gpu02), or localhost. Default: "
    "FLAGSCALE_DEPLOY_INVENTORY, else flagscale-deploy.yaml, the serve YAML, ansible.cfg.",
)
CONFIG = click.option(
    "-c",
    "--config",
    metavar="FILE",
    type=click.Path(),
    help="Serve YAML, a Hydra experiment file, or recipe:ORG/MODEL. Default: FLAGSCALE_DEPLOY_CONFIG, else "
    "flagscale-deploy.yaml.",
)
RECIPES = click.option(
    "--recipes",
    metavar="DIR",
    type=click.Path(),
    help="Folder that recipes are read from. Default: FLAGSCALE_DEPLOY_RECIPES, else recipes.vllm.ai.",
)
CONFIG_PATH = click.option(
    "--config-path",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="The folder of --config-name, as in FlagScale's run.py.",
)
CONFIG_NAME = click.option(
    "--config-name", metavar="NAME", help="An experiment file in --config-path, with or without .yaml."
)
NAME = click.option(
    "--name",
    metavar="NAME",
    shell_complete=complete.deployments,
    help="The deployment's name. Default: experiment.exp_name, else the configuration's file name.",
)
LIMIT = click.option(
    "--limit",
    metavar="PATTERN",
    shell_complete=complete.hosts_and_groups,
    help="Only these hosts: an Ansible host pattern.",
)
FORKS = click.option(
    "--forks",
    metavar="N",
    type=Whole(1, MOST_FORKS),
    default=64,
    show_default=True,
    help="How many hosts to contact at the same time.",
)
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
TEMPLATES = click.option(
    "--templates",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder of script templates that replace the packaged ones of the same name.",
)
FORCE = click.option("--force", is_flag=True, help="Also use GPUs that other processes use.")
FORCE_PART = click.option("--force", is_flag=True, help="Also end a part of a deployment that the rest of it needs.")
WAIT = click.option(
    "--wait",
    metavar="DURATION",
    type=DURATION,
    default=0.0,
    help="Wait for this long (30m) for GPUs and ports that others have. Default: do not wait.",
)
SKIP = click.option(
    "--skip-check",
    "skip",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.checks,
    help="Leave this check out (may be given often).",
)
JUNIT = click.option(
    "--junit", metavar="FILE", type=click.Path(path_type=Path), help="Write the results as JUnit XML, for CI systems."
)
LOCK = click.option(
    "--lock-timeout",
    type=Number(0, 7 * 86_400),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for another command on the same deployment.",
)
QUIET = click.option("-q", "--quiet", is_flag=True, help="Print results and errors only.")
VERBOSE = click.option(
    "-v",
    "--verbose",
    count=True,
    help="Print progress as plain lines, and more; -vv: each program and script that is run on a host.",
)
COLOR = click.option("--no-color", is_flag=True, help="No colours (also: NO_COLOR in the environment).")
HOSTS = (INVENTORY, LIMIT, FORKS)
DEPLOYMENT_ALONE = (INVENTORY, CONFIG, CONFIG_PATH, CONFIG_NAME, RECIPES, NAME, LIMIT, FORKS)
"""Options about a deployment, for commands that have words of their own beside KEY=VALUE."""
DEPLOYMENT = (*DEPLOYMENT_ALONE, OVERRIDES)


def options(*chosen: Callable[[Any], Any]) -> Callable[[F], F]:
    """Apply options in the order they are listed; those every command has come last."""

    def apply(function: F) -> F:
        for option in reversed((*chosen, QUIET, VERBOSE, COLOR)):
            function = option(function)
        return function

    return apply


def command(function: F) -> F:
    """Turn errors into messages and exit statuses; SIGTERM interrupts as Ctrl-C does."""

    @functools.wraps(function)
    @kept_private()
    def guarded(*, quiet: bool, verbose: int, no_color: bool, **words: Any) -> None:
        importlib.import_module("flagscale_deploy.api")  # most of what a command imports: before interrupts are caught
        from flagscale_deploy.errors import DeployError, InterruptedByUser
        from flagscale_deploy.output.console import Console
        from flagscale_deploy.output.streams import discard
        from flagscale_deploy.support.learn_secrets import learn_value, learning
        from flagscale_deploy.transport.ssh_notes import show_notes

        as_json = bool(words.get("as_json"))
        console = Console(quiet=quiet, verbose=bool(verbose), color=not no_color and not os.environ.get("NO_COLOR"))
        if verbose:
            show_notes(lambda text: console.note(*text.split("\n")), programs=verbose > 1)
        try:
            interrupts.catch()
            with learning(console.redactor):
                learn_value(words)
                code = function(console, **words)
        except DeployError as error:
            _end_on_interrupt(error.exit_code)
            code = _report(console, error, as_json)
        except KeyboardInterrupt:
            _end_on_interrupt(130)
            code = _report(console, InterruptedByUser("interrupted"), as_json)
        except BrokenPipeError:  # nobody reads
            discard(sys.stdout)
            code = 1
        except Exception as error:  # noqa: BLE001 (the command line: nothing is above it)
            if verbose:  # not left to the interpreter: what it prints is not looked through for secrets
                console.error(*traceback.format_exc().splitlines())
            remedy = "please report it" if verbose else "run again with -v for the traceback, and report it"
            bug = DeployError(f"internal error: {type(error).__name__}: {error}", f"    → {remedy}")
            code = _report(console, bug, as_json)
        with suppress(KeyboardInterrupt):
            console.settle()
        sys.exit(code or 0)

    return guarded  # type: ignore[return-value]  # the same function to click


@contextmanager
def reporting_lost_output() -> Iterator[None]:
    """Exit with status 1 and one line where what click itself prints (help, completion) cannot be written."""
    try:
        yield
    except OSError as error:
        from flagscale_deploy.output.streams import discard

        discard(sys.stdout)
        with suppress(OSError):
            click.echo(f"✗ the result cannot be written to standard output: {error.strerror}", err=True)
        sys.exit(1)


def _end_on_interrupt(code: int) -> None:
    """Exit with this status, without a traceback, on a second interrupt while a command reports how it ended.

    At its very end the interpreter removes handlers; by default the process would then end by the signal.
    """
    for number in interrupts.SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(code))
            atexit.register(signal.signal, number, signal.SIG_IGN)


def _report(console: Console, error: DeployError, as_json: bool) -> int:
    from flagscale_deploy.output.errors import show_error  # only where needed: it imports what acts

    return show_error(console, error, as_json)


def request_of(console: Console, words: dict[str, Any], *, acts: bool = False, plans: bool | None = None) -> Request:
    """Take the options of a request out of a command's words; its secrets are not printed from now on.

    A command that `plans` needs a configuration beside a name; by default one with --templates does. Raises InputError
    where the command `acts` on hosts and none are named.
    """
    from flagscale_deploy.api.request import Options, load_request

    folder, name = words.pop("config_path", None), words.pop("config_name", None)
    if folder is not None or name is not None:
        words["config"] = _config_in(folder, name, words.get("config"))
    _add_defaults(console, words, plans="templates" in words if plans is None else plans)
    names = (
        "inventory", "unnamed", "unnamed_config", "config", "name", "limit", "without", "forks", "overrides", "recipes",
    )  # fmt: skip
    request = load_request(Options(**{name: words.pop(name) for name in names if name in words}, acts=acts))
    console.redactor.add(*request.secrets)
    if notes := (*request.inventory.notes, *(request.inventory.details if console.verbose else ())):
        console.note(*notes)
    if request.is_here_by_default:
        console.note("without -i, this is about this machine alone; a command that changes hosts needs -i localhost")
    return request


def _add_defaults(console: Console, words: dict[str, Any], *, plans: bool) -> None:
    """Set the options that the command line leaves out, and say where they are from."""
    from click.core import ParameterSource

    from flagscale_deploy.cli.defaults import find_defaults

    given = {**words}
    context = click.get_current_context(silent=True)
    if context is not None and context.get_parameter_source("forks") is ParameterSource.DEFAULT:
        given["forks"] = None
    values, notes = find_defaults(given, os.environ, plans=plans, contacts=not words.get("offline"))
    words.update(values)
    if notes:
        console.note(*notes)


def plan_options(words: Mapping[str, Any]) -> PlanOptions:
    """Return the options of a command that plans: --templates, --force, --skip-check and --wait."""
    from flagscale_deploy.api.request import PlanOptions

    return PlanOptions(words["templates"], words["force"], words.get("skip", ()), words.get("wait", 0.0))


def _config_in(folder: str | None, name: str | None, config: str | None) -> str:
    """Return the file that Hydra's two options mean. Raises InputError beside `-c`, and where it is not there."""
    from flagscale_deploy.errors import InputError
    from flagscale_deploy.support.suggest import suggest

    where = "--config-path" if name is None else "--config-name"
    if config is not None:
        raise InputError.at(where, f"names another configuration than -c {config}", "give one of the two")
    place, name = Path(folder or "."), name or "config"
    path = place / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    if not os.path.isdir(place):
        raise InputError.at("--config-path", f"there is no folder {place}", "a relative one starts where you are")
    if not os.path.isfile(path):  # False, where Path.is_file would raise, for a name that no file can have
        names = [file.stem for file in place.glob("*.y*ml")]
        raise InputError.at(where, f"there is no file {path}", suggest(Path(name).name, names))
    return str(path)
