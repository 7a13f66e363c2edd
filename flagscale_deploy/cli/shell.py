"""`completion`: what the operator's shell is told."""

from __future__ import annotations

import click

from flagscale_deploy.cli.help import Command

PROGRAM = "flagscale-deploy"
VARIABLE = "_FLAGSCALE_DEPLOY_COMPLETE"
"""The variable by which Click is asked for completions; it follows from the program's name."""


@click.command(cls=Command, section="shell", example='eval "$(flagscale-deploy completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that lets the shell complete commands, options, deployments, hosts, groups and checks.

    \b
    bash  in ~/.bashrc: eval "$(flagscale-deploy completion bash)"
    zsh   in ~/.zshrc:  eval "$(flagscale-deploy completion zsh)"
    fish  flagscale-deploy completion fish > ~/.config/fish/completions/flagscale-deploy.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, shell
    script = kind(ctx.find_root().command, {}, PROGRAM, VARIABLE).source()
    # Click's script for fish cuts a value at its first comma (8.5); a host pattern has commas.
    click.echo(script.replace('string split ","', 'string split -m 1 ","'), nl=False)
