"""`completion` and `schema`: for the operator's shell and editor."""

from __future__ import annotations

import click

from flagscale_deploy.cli.help import Command

PROGRAM = "flagscale-deploy"
VARIABLE = "_FLAGSCALE_DEPLOY_COMPLETE"
"""The variable by which the shell asks Click for completions; its name follows from the program's."""


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


@click.command(cls=Command, section="shell", example="flagscale-deploy schema serve > serve.schema.json")
@click.argument("kind", type=click.Choice(["serve", "inventory"]))
def schema(kind: str) -> None:
    """Print the JSON Schema of a serve YAML or of an inventory, for editors.

    Editors with a YAML language server then check and complete a file whose first line is
    `# yaml-language-server: $schema=serve.schema.json`.
    """
    import json

    if kind == "serve":
        from flagscale_deploy.config.json_schema import serve_schema as schema_of
    else:
        from flagscale_deploy.inventory.json_schema import inventory_schema as schema_of
    click.echo(json.dumps(schema_of(), indent=2, ensure_ascii=False))
