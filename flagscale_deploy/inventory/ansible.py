"""Build an inventory from the groups and hosts of Ansible's forms: precedence, references, keys."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory.ansible_vars import APPLICATIONS, COMMON, PREFIX, HostVariables, read_variables
from flagscale_deploy.inventory.assembly import assemble
from flagscale_deploy.inventory.keys import HOST_KEYS, make_host
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.inventory.ranges import is_ip_address
from flagscale_deploy.inventory.references import References
from flagscale_deploy.inventory.surroundings import Surroundings
from flagscale_deploy.inventory.tree import ALL, Faults, Tree, Variables, plain_values
from flagscale_deploy.inventory.variable_files import VariableFiles
from flagscale_deploy.support.template_budget import SHARE, Budget

MOST_VARIABLES = 2_000_000
"""How many variables all hosts may have together, those of their groups included."""
PRIORITY = "ansible_group_priority"


def build(tree: Tree, around: Surroundings, faults: Sequence[Fault], source: str) -> Inventory:
    """Return the inventory of a tree; what is wrong with a single host is kept in `Inventory.faults`.

    Raises InputError with every fault where the file itself, or one beside it, is wrong.
    """
    tree.settle()
    variables = _variables_by_host(tree, around.files, source)
    references = _references(tree, around, source, variables)
    budget = Budget(SHARE + 20 * len(tree.hosts))
    read: dict[str, HostVariables] = {}
    for name, own in variables.items():
        with budget.share():
            read[name] = read_variables({**around.config.arguments, **own}, references[name], around.files.encrypted)
    foreign = {key for host in read.values() for key in host.foreign}
    hosts: list[Host] = []
    by_host: dict[str, tuple[Fault, ...]] = {}
    for name, host in read.items():
        plain = plain_values(variables[name])
        keys = host.all_keys(foreign, around.config.keys)
        made, wrong = make_host(name, keys, plain)
        if wrong := [*host.all_faults(keys), *wrong]:
            by_host[name] = tuple(wrong)
        hosts.append(made or Host(name, name, vars=plain))
    groups = {name: _group_variables(tree, around.files, name) for name in tree.groups}
    wrong_files = [*faults, *around.files.faults]
    if wrong_files:
        wrong_files = [*Faults(wrong_files), *(fault for host in by_host.values() for fault in host)]
    inventory = assemble(tree, hosts, wrong_files, source, groups)
    notes, details = _notes(foreign, read, variables, source)
    config = around.config
    return replace(inventory, faults=by_host, notes=(*config.notes, *notes), details=(*config.details, *details))


def _notes(
    foreign: Collection[str], read: Mapping[str, HostVariables], variables: Mapping[str, Variables], source: str
) -> tuple[list[str], list[str]]:
    """Return what is said of bare words that are not ours: at once, and with `-v`."""
    notes, details = list[str](), list[str]()
    for key in sorted(foreign):
        host = next(name for name, host in read.items() if key in host.foreign)
        where = variables[host][key].where
        note = f"{where}: taken for a variable of your own; expected {HOST_KEYS[key]}; {PREFIX}{key} is always ours"
        (details if key in COMMON else notes).append(note)
    used = [key for key in APPLICATIONS if any(key in own for own in variables.values())]
    if used:
        details.append(
            f"{source}: taken for variables of your own: {', '.join(used)}; SSH's are ansible_… or {PREFIX}…"
        )
    return notes, details


def _variables_by_host(tree: Tree, files: VariableFiles, source: str) -> dict[str, Variables]:
    """Return every host's variables after precedence (docs.ansible.com, "How variables are merged").

    From the weakest: `all` and then the groups in the inventory, the same in group_vars/, the host in the inventory,
    the host in host_vars/. Groups go from parent to child, at one depth by priority and then by name.
    """
    depths, by_host = tree.depths(), tree.groups_by_host()
    in_files = {name: files.variables("group_vars", name) for name in tree.groups}
    merged: dict[str, Variables] = {}
    variables = 0
    for host, own in tree.hosts.items():
        groups = sorted(by_host[host] - {ALL}, key=lambda name: (depths[name], tree.groups[name].priority, name))
        layers = [tree.groups[name].variables for name in (ALL, *groups)]
        layers += [in_files[name] for name in (ALL, *groups)]
        layers += [own, files.variables("host_vars", host)]
        merged[host] = {name: value for layer in layers for name, value in layer.items()}
        variables += len(merged[host])
        if variables > MOST_VARIABLES:
            problem = f"gives its hosts more than {MOST_VARIABLES:,} variables together"
            raise InputError.at(source, problem, "take out what nothing reads")
    return merged


def _group_variables(tree: Tree, files: VariableFiles, name: str) -> dict[str, object]:
    group = tree.groups[name]
    priority = {PRIORITY: group.priority} if group.priority != 1 else {}
    return plain_values(group.variables | files.variables("group_vars", name)) | priority


def _references(
    tree: Tree, around: Surroundings, source: str, variables: Mapping[str, Variables]
) -> Mapping[str, References]:
    """Return the scope of each host's templates: its variables and the names that Ansible adds."""
    by_host = tree.groups_by_host()
    groups: dict[str, list[str]] = {name: [] for name in tree.groups}
    for host in tree.hosts:
        for group in by_host[host]:
            groups[group].append(host)
    shared = {
        "groups": groups,
        "hostvars": (scopes := dict[str, References]()),
        "inventory_file": source if around.directory is None else str(around.directory / PurePath(source).name),
        "inventory_dir": str(around.directory or "."),
        "playbook_dir": around.working_directory,
        "ansible_playbook_python": sys.executable or "python3",
        "omit": None,
    }
    for name, own in variables.items():
        magic = {
            "inventory_hostname": name,
            "inventory_hostname_short": name if is_ip_address(name) else name.split(".")[0],
            "group_names": sorted(by_host[name] - {ALL}),
        }
        scopes[name] = References({**plain_values(own), **shared, **magic}, around.environ)
    return scopes
