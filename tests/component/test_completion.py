"""The completion scripts in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.sources import ROOT

HOSTS = "hosts: ['gpu[01:02]', tools01]\ngroups: {rack1: ['gpu[01:02]']}\n"
ASK = {
    "bash": """
eval "$(flagscale-deploy completion bash)"
read -ra COMP_WORDS <<< "$LINE"
[[ $LINE == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
[[ $(complete -p flagscale-deploy) == *_flagscale_deploy_completion* ]] || exit 1
_flagscale_deploy_completion flagscale-deploy 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
""",
    "zsh": """
autoload -U compinit && compinit -D
eval "$(flagscale-deploy completion zsh)"
[[ $_comps[flagscale-deploy] == _flagscale_deploy_completion ]] || exit 1
words=(${(z)LINE}); [[ $LINE == *' ' ]] && words+=('')
CURRENT=$#words
compadd() { print -l -- ${(P)@[-1]} }
_describe() { print -l -- ${(@)${(P)3}%%:*} }
_flagscale_deploy_completion
""",
    "fish": "flagscale-deploy completion fish | source\ncomplete -C $LINE",
}
"""What prints the completions of a line. `compopt` works while bash completes only, hence no standard error; zsh's
`compadd` and `_describe` work in its line editor only, hence functions that print what they are given."""


@pytest.mark.parametrize("shell", [shell for shell in ASK if shutil.which(shell)])
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("flagscale-deploy uni", []),
        ("flagscale-deploy un", ["unlock"]),
        ("flagscale-deploy completion ", ["bash", "zsh", "fish"]),
        ("flagscale-deploy exec -i hosts.yaml --limit rack1,!g", ["rack1,!gpu01", "rack1,!gpu02"]),
        ("flagscale-deploy check --skip-check same-r", ["same-ray"]),
        ("flagscale-deploy stop --name q", ["qwen"]),
    ],
)
def test_a_shell_completes(tmp_path: Path, shell: str, line: str, offered: list[str]) -> None:
    program = tmp_path / "bin" / "flagscale-deploy"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m flagscale_deploy "$@"\n')
    program.chmod(0o755)
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    (tmp_path / "outputs/qwen/runs").mkdir(parents=True)
    path = f"{program.parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "LINE": line}
    done = subprocess.run(
        [shell, "-c", ASK[shell]], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert sorted(word.partition("\t")[0] for word in done.stdout.split("\n") if word) == sorted(offered)
