"""Files that nobody names, in a directory that everybody may write to: none of another user's is read."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from flagscale_deploy.api.planning import load_sources
from flagscale_deploy.api.recipes import settle
from flagscale_deploy.api.request import Options, PlanOptions, load_request
from flagscale_deploy.cli import cli
from flagscale_deploy.errors import HostKeyError, InputError
from flagscale_deploy.inventory.load import load_inventory
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.push.arguments import parse_arguments
from flagscale_deploy.rendering.render import load_templates
from flagscale_deploy.support.planted import refuse_planted_output
from flagscale_deploy.transport.hostkeys import HostKeys
from flagscale_deploy.transport.ssh_settings import Settings
from tests.other_user import needs_root

pytestmark = needs_root
NOBODY = 65534
PROGRAM = "experiment: {task: {entrypoint: code/app.py}}\n"
COMPOSED = "defaults: [{serve: big}]\n"


def hosts(folder: Path) -> None:
    load_inventory(folder / "hosts.ini")


def this_machine(_folder: Path) -> None:
    load_inventory("localhost")


def listed(_folder: Path) -> None:
    load_inventory("gpu01,gpu02")


def configuration(folder: Path) -> None:
    load_request(Options("gpu01,", str(folder / "composed.yaml")), {})


def program(folder: Path) -> None:
    request = load_request(Options("gpu01,", str(folder / "program.yaml")), {})
    load_sources(request, PlanOptions())


def templates(folder: Path) -> None:
    load_templates(folder)


def pushed(_folder: Path) -> None:
    parse_arguments("gpu01:models/m", "/models/m", ["gpu01"])


def recipe(folder: Path) -> None:
    options = Options("gpu01,", "recipe:a/b", ("hardware=h200", "strategy=x"), recipes=str(folder))
    settle(load_request(options, {}), offline=True, environ={})


RECIPE = json.dumps(
    {"hardware": "h200", "strategy": "x", "deploy_type": "single_node", "env": {}, "argv": ["vllm", "serve", "a/evil"]}
)


def configured(folder: Path, text: str) -> None:
    config = folder / "configured.yaml"
    config.write_text(f"model_args: {{m: {{model: /m}}}}\n{text}\n")
    load_request(Options(None, str(config)), {})


def hostfile(folder: Path) -> None:
    configured(folder, "experiment: {runner: {hostfile: hosts.txt}}")


def secret_file(folder: Path) -> None:
    configured(folder, "deploy: {secret_files: {VLLM_API_KEY: key.txt}}")


def certificate(folder: Path) -> None:
    configured(folder, "deploy: {tls: {send: true, certfile: tls/cert.pem, keyfile: tls/cert.pem}}")


def known_hosts(_folder: Path) -> None:
    try:
        HostKeys(Host("gpu01", "gpu01", known_hosts="known"), Settings("gpu01", "gpu01", "me"))
    except HostKeyError as error:
        raise InputError.at("known", str(error)) from error


VARIABLES = "ansible_ssh_common_args: -o ProxyCommand=evil\n"
MODEL = "- {serve_id: vllm_model, engine_args: {model: /evil}}\n"
PLACES: dict[str, tuple[Callable[[Path], None], str]] = {
    "group_vars/all": (hosts, VARIABLES),
    "group_vars/all.yml": (hosts, VARIABLES),
    "group_vars/all/more.yml": (hosts, VARIABLES),
    "host_vars/gpu01.yaml": (hosts, VARIABLES),
    "host_vars/gpu01.json": (hosts, "{}"),
    "localhost": (this_machine, "evil\n"),
    "gpu01,gpu02": (listed, "evil\n"),
    "serve/big.yaml": (configuration, MODEL),
    "code/app.py": (program, "evil()\n"),
    "code/json.py": (program, "evil()\n"),
    "code/more/json.py": (program, "evil()\n"),
    "vllm_serve.sh.j2": (templates, "evil\n"),
    "a/b/hw/h200/strategies/x.json": (recipe, RECIPE),
    "gpu01:models/m": (pushed, "evil\n"),
    "hosts.txt": (hostfile, "evil slots=8\n"),
    "key.txt": (secret_file, "evil-key\n"),
    "tls/cert.pem": (certificate, "evil\n"),
    "known": (known_hosts, "evil\n"),
}
"""What is read by a name of its own, by whom, and what may stand in it."""


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide a directory like /tmp, in which the operator works and has own files."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    (folder / "hosts.ini").write_text("gpu01\n")
    (folder / "program.yaml").write_text(PROGRAM)
    (folder / "composed.yaml").write_text(COMPOSED)
    (folder / "code").mkdir()
    (folder / "code/app.py").write_text("# flagscale-deploy: with-folder\n")
    monkeypatch.chdir(folder)
    return folder


def parts(folder: Path, name: str) -> list[Path]:
    """Return each directory on the way to a file, and the file."""
    path = folder / name
    return [*[above for above in reversed(path.parents) if above != folder and above.is_relative_to(folder)], path]


def write(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(("# flagscale-deploy: with-folder\n" if name == "code/app.py" else "") + PLACES[name][1])


@pytest.mark.parametrize("name", PLACES)
def test_what_another_user_has_put_there_is_refused(shared: Path, name: str) -> None:
    read = PLACES[name][0]
    write(shared, name)
    for at, part in enumerate(parts(shared, name)):
        if at:
            part.parent.chmod(0o777)
        os.chown(part, NOBODY, NOBODY)
        with pytest.raises(InputError, match="is another user's: everybody may write to") as caught:
            read(shared)
        assert str(part.relative_to(shared)) in str(caught.value)
        assert "evil" not in str(caught.value)
        os.chown(part, 0, 0)


@pytest.mark.parametrize("name", PLACES)
def test_no_link_of_another_user_is_followed(shared: Path, tmp_path: Path, name: str) -> None:
    write(shared, name)
    top = parts(shared, name)[0]
    shutil.move(top, tmp_path / "elsewhere")  # a file of the operator's own
    top.symlink_to(tmp_path / "elsewhere")
    os.chown(top, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(InputError, match="is another user's"):
        PLACES[name][0](shared)


@pytest.mark.parametrize("name", [name for name in PLACES if PLACES[name][1] not in ("evil()\n", "evil\n")])
def test_the_users_own_are_read_and_those_in_a_closed_directory_whosever_they_are(shared: Path, name: str) -> None:
    write(shared, name)
    PLACES[name][0](shared)
    shared.chmod(0o775)
    for part in parts(shared, name):
        os.chown(part, NOBODY, NOBODY)
        part.chmod(0o755 | stat.S_ISVTX if part.is_dir() else 0o644)
    PLACES[name][0](shared)


@pytest.mark.parametrize("name", ["localhost", "gpu01,gpu02", "gpu01:models/m"])
def test_a_file_that_would_count_for_hosts_is_refused_in_a_directory_of_its_owner(shared: Path, name: str) -> None:
    """Whoever looks at somebody's logs works in their directory, and has not named it."""
    write(shared, name)
    for path in (shared, *parts(shared, name)):
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o755)
    with pytest.raises(InputError, match="is another user's"):
        PLACES[name][0](shared)


def test_files_of_the_one_whose_directory_it_is_are_read(shared: Path) -> None:
    """As in a project of somebody else's that is open to all: who works in it, trusts its owner."""
    write(shared, "group_vars/all.yml")
    for path in (shared, shared / "group_vars", shared / "group_vars/all.yml"):
        os.chown(path, NOBODY, NOBODY)
    hosts(shared)


@pytest.mark.parametrize("output", ["out", "out/kept.yaml"])
def test_scripts_and_a_serve_yaml_are_written_into_no_folder_of_another_user(shared: Path, output: str) -> None:
    (shared / "serve").mkdir()
    (shared / "serve/big.yaml").write_text(MODEL)
    (shared / "out").mkdir()
    os.chown(shared / "out", NOBODY, NOBODY)
    words = ["plan", "--offline", "-i", "hosts.ini", "-c", "composed.yaml", "-o", output]
    refused = CliRunner().invoke(cli, words)
    assert (refused.exit_code, list((shared / "out").iterdir())) == (2, [])
    assert "is another user's: everybody may write to" in refused.output


OUTPUTS = ["x.yaml", "plans/x.yaml", "link/x.yaml", "scripts", "link/scripts", "own-link/link/x.yaml"]


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("absolute", [True, False])
def test_nothing_is_written_through_a_folder_or_a_link_of_another_user(
    shared: Path, tmp_path: Path, output: str, absolute: bool
) -> None:
    """Theirs is a folder in /tmp, in which everybody may write, with links that lead into the operator's own."""
    theirs, own = shared / "theirs", tmp_path / "own"
    for folder in (theirs, theirs / "plans", own):
        folder.mkdir()
    for name in ("junit.xml", "smoke.json", "prompts.txt"):
        (own / name).write_text("precious")
    (theirs / "link").symlink_to(own)
    (shared / "serve").mkdir()
    (shared / "serve/big.yaml").write_text(MODEL)
    for path in (theirs, theirs / "plans", theirs / "link"):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    theirs.chmod(0o777)
    (shared / "own-link").symlink_to(theirs)
    place = "own-link/link/x.yaml" if output.startswith("own-link") else f"theirs/{output}"
    at = str(shared / place) if absolute else place
    before = sorted(own.iterdir())
    words = ["-i", "hosts.ini", "-c", "composed.yaml"]
    for command in (
        ["plan", "--offline", *words, "-o", at],
        ["run", *words, f"experiment.exp_dir={at}"],
        ["check", *words, "--junit", at],
        ["smoke", *words, "--artifacts", at],
        ["smoke", *words, "--artifacts", str(tmp_path / "artifacts"), "--junit", at],
    ):
        refused = CliRunner().invoke(cli, command)
        assert (refused.exit_code, "is another user's" in refused.output) == (2, True), (command, refused.output)
        assert sorted(own.iterdir()) == before
        assert sorted(path.name for path in theirs.rglob("*")) == ["link", "plans"]


def test_something_is_written_where_only_its_owner_may_change_it(shared: Path, tmp_path: Path) -> None:
    """As in a colleague's project that is closed to others, and behind links of one's own."""
    project = tmp_path / "project"
    project.mkdir()
    (shared / "mine").symlink_to(project)
    os.chown(project, NOBODY, NOBODY)
    tmp_path.chmod(0o755)
    (shared / "hosts.ini").write_text("gpu01 fsd_gpus=8\n")
    (shared / "serve").mkdir()
    (shared / "serve/big.yaml").write_text(MODEL)
    for path in (str(project / "out"), str(shared / "mine/more"), "new/deep"):
        done = CliRunner().invoke(cli, ["plan", "--offline", "-i", "hosts.ini", "-c", "composed.yaml", "-o", path])
        assert done.exit_code == 0, done.output


def test_links_that_lead_in_a_circle_are_refused(shared: Path) -> None:
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")
    with pytest.raises(InputError, match="too many links"):
        refuse_planted_output(Path("a/x"))


@pytest.mark.parametrize("part", ["outputs", "outputs/q", "outputs/q/runs"])
@pytest.mark.parametrize("kind", ["a folder", "a link"])
def test_no_run_is_kept_in_a_folder_or_behind_a_link_of_another_user(shared: Path, part: str, kind: str) -> None:
    """`outputs/` is where nobody has named it: in the working directory, /tmp say."""
    (shared / "own").mkdir()
    path = shared / part
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(shared / "own") if kind == "a link" else path.mkdir()
    path.parent.chmod(0o1777)
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    words = ["run", "-i", "hosts.ini", "-c", "composed.yaml", "experiment.exp_dir=outputs/q"]
    (shared / "serve").mkdir()
    (shared / "serve/big.yaml").write_text(MODEL)
    refused = CliRunner().invoke(cli, words)
    assert (refused.exit_code, list((shared / "own").iterdir())) == (2, []), refused.output
    assert f"{part} is another user's: everybody may write to" in refused.output
