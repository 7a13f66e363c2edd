"""Build an inventory from the groups and hosts of Ansible's forms: precedence, references, keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory.ansible_vars import read_keys
from flagscale_deploy.inventory.assembly import assemble
from flagscale_deploy.inventory.keys import make_host
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.inventory.ranges import is_ip_address
from flagscale_deploy.inventory.references import References
from flagscale_deploy.inventory.tree import ALL, Faults, Tree, Variables, plain_values
from flagscale_deploy.inventory.variable_files import VariableFiles
from flagscale_deploy.support.template_budget import SHARE, Budget

MOST_VARIABLES = 2_000_000
"""How many variables all hosts may have together, those of their groups included."""
PRIORITY = "ansible_group_priority"


def build(tree: Tree, files: VariableFiles, faults: Sequence[Fault], source: str) -> Inventory:
    """Return the inventory of a tree. Raises InputError with every fault of the file and of those beside it."""
    tree.settle()
    variables = _variables_by_host(tree, files, source)
    references = _references(tree, files, source, variables)
    hosts: list[Host | None] = []
    all_faults = Faults(faults)
    budget = Budget(SHARE + 20 * len(tree.hosts))
    for name, own in variables.items():
        with budget.share():
            keys, wrong = read_keys(own, references[name], files.encrypted)
        host, more = make_host(name, keys, plain_values(own))
        hosts.append(host)
        all_faults += wrong + more
    groups = {name: _group_variables(tree, files, name) for name in tree.groups}
    return assemble(tree, hosts, [*all_faults, *files.faults], source, groups)


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
    tree: Tree, files: VariableFiles, source: str, variables: Mapping[str, Variables]
) -> Mapping[str, References]:
    """Return the scope of each host's templates: its variables and the names that Ansible adds."""
    by_host = tree.groups_by_host()
    shared = {
        "groups": {name: [host for host in tree.hosts if name in by_host[host]] for name in tree.groups},
        "hostvars": (scopes := dict[str, References]()),
        "inventory_file": source,
        "inventory_dir": str(files.directory or "."),
    }
    for name, own in variables.items():
        magic = {
            "inventory_hostname": name,
            "inventory_hostname_short": name if is_ip_address(name) else name.split(".")[0],
            "group_names": sorted(by_host[name] - {ALL}),
        }
        scopes[name] = References({**plain_values(own), **shared, **magic})
    return scopes
