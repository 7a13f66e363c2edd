"""The command line: parse options, call one function of `api`, print its result, return an exit status.

Commands import what they need when they run, so that `--help` is quick.
"""

from __future__ import annotations

import gc

import click

from flagscale_deploy import __version__
from flagscale_deploy.cli.bench import bench
from flagscale_deploy.cli.call import call
from flagscale_deploy.cli.check import check
from flagscale_deploy.cli.cleanup import cleanup
from flagscale_deploy.cli.exec import exec_
from flagscale_deploy.cli.help import Commands
from flagscale_deploy.cli.history import history
from flagscale_deploy.cli.hosts import hosts
from flagscale_deploy.cli.logs import logs
from flagscale_deploy.cli.options import reporting_lost_output
from flagscale_deploy.cli.plan import plan
from flagscale_deploy.cli.ps import ps
from flagscale_deploy.cli.push import push
from flagscale_deploy.cli.rollback import rollback
from flagscale_deploy.cli.run import run
from flagscale_deploy.cli.shell import PROGRAM, completion, schema
from flagscale_deploy.cli.smoke import smoke
from flagscale_deploy.cli.status import status
from flagscale_deploy.cli.stop import stop
from flagscale_deploy.cli.unlock import unlock
from flagscale_deploy.cli.update import update

GARBAGE = 50_000
"""New objects before Python looks for cycles among them. With Python's own 700, a plan for 1000 hosts takes 10 %
longer: hardly any of its objects is garbage."""


COMMANDS = (
    *(run, update, rollback, stop, cleanup, smoke),
    *(plan, check, ps, status, history, logs, call),
    *(hosts, exec_, push, unlock),
    bench,
    *(completion, schema),
)
"""In the order in which they are listed."""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name=PROGRAM)
def cli() -> None:
    """Serve large models with vLLM over Ray on hosts that SSH reaches: one inventory, one serve YAML, one command.

    KEY=VALUE words after the options override the configuration:

    \b
      flagscale-deploy run -i hosts.yaml -c qwen.yaml deploy.port=9000

    \b
    Exit status:
      0  done
      1  failed on a host
      2  bad input, no host was contacted
      3  a host cannot be reached, logged into or trusted
      4  the check found a problem, nothing was started
      5  started but never ready, taken down; a change that failed, put back
      6  locked by another command
      7  others have the GPUs or ports, nothing was started
      130  interrupted
    """


for _command in COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """Run the command line."""
    gc.set_threshold(GARBAGE)
    with reporting_lost_output():
        cli(prog_name=PROGRAM)
