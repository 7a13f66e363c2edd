from __future__ import annotations

from flagscale_deploy.inventory.load import parse_inventory
from tests.unit.inventory.faults import faults_of

# As FlagScale ships it (examples/deepseek/conf/hostfile.txt), with addresses in place of x.x.x.x: a trailing blank
# behind the first host, and no newline at the end.
FLAGSCALE = (
    "# ip slots type=xxx[optional]\n# master node\n{head} slots=8 type=gpu \n# worker nodes\n{worker} slots=8 type=gpu"
)


def test_flagscales_own_sample_is_read_and_its_first_line_is_the_head() -> None:
    inventory = parse_inventory(FLAGSCALE.format(head="10.0.0.2", worker="10.0.0.1"), "hostfile.txt")
    assert [(host.name, host.address, host.gpus, host.type) for host in inventory.hosts] == [
        ("10.0.0.2", "10.0.0.2", 8, "gpu"),
        ("10.0.0.1", "10.0.0.1", 8, "gpu"),
    ]
    assert inventory.head.name == "10.0.0.2"


def test_a_placeholder_that_was_not_filled_in_is_a_duplicate_with_both_lines() -> None:
    faults = faults_of(FLAGSCALE.format(head="x.x.x.x", worker="x.x.x.x"), "hostfile.txt")
    assert faults == [("hostfile.txt:5", "found host 'x.x.x.x', which is already on line 3")]


def test_types_logins_comments_and_blank_lines() -> None:
    text = (
        "\r\n  gpu01   slots=4\r\n\t\r\nroot@cpu[1:2]:2222 slots=0 type=cpu # tools\r\nnpu1 slots=16 type=Ascend910\r\n"
    )
    hosts = parse_inventory(text, "hosts").hosts
    assert [(host.name, host.user, host.port, host.gpus, host.type) for host in hosts] == [
        ("gpu01", None, None, 4, "gpu"),
        ("cpu1", "root", 2222, 0, "cpu"),
        ("cpu2", "root", 2222, 0, "cpu"),
        ("npu1", None, None, 16, "Ascend910"),
    ]


def test_blanks_before_every_line_do_not_hide_a_hostfile() -> None:
    hosts = parse_inventory("  gpu01 slots=4\n  gpu02 slots=8 type=A100\n", "hosts").hosts
    assert [(host.name, host.gpus, host.type) for host in hosts] == [("gpu01", 4, "gpu"), ("gpu02", 8, "A100")]


def test_slots_in_a_text_of_yaml_make_no_hostfile() -> None:
    text = "hosts:\n  - name: a\n    before_start: |\n      echo a slots=8 > mpi\n"
    assert parse_inventory(text, "hosts.yaml").names == ("a",)


def test_slots_in_the_wrong_place_are_an_error_and_not_lost() -> None:
    (fault,) = faults_of("10.0.0.1 type=gpu slots=8\n", "h")
    assert fault == ("h:1", "found '10.0.0.1 type=gpu slots=8', expected HOST slots=N [type=gpu|cpu|RESOURCE]")


def test_every_wrong_line_is_reported() -> None:
    text = "a slots=8\nb slot=8\nc slots=8 type=gpu more\nd slots=-2\ne slots= type=gpu\n../f slots=1\na slots=8\n"
    expected = "expected HOST slots=N [type=gpu|cpu|RESOURCE]"
    assert faults_of(text, "h") == [
        ("h:2", f"found 'b slot=8', {expected}"),
        ("h:3", f"found 'c slots=8 type=gpu more', {expected}"),
        ("h:4: slots", "found '-2', expected a whole number of GPUs, from 0 to 9999"),
        ("h:5: slots", "found 'nothing', expected a whole number of GPUs, from 0 to 9999"),
        ("h:6", "found the host name '../f', expected letters, digits, '.', '-', '_' or an IP address"),
        ("h:7", "found host 'a', which is already on line 1"),
    ]
