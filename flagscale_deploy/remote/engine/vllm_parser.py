"""Read command lines with vLLM's own parser, under the Python that runs `vllm`, and start nothing.

Its text is sent along by `parse_flags`, followed by a call of `answer`; it needs nothing of ours. `vllm serve` makes
its parser since 0.7 with a `ServeSubcommand` in vllm/entrypoints/cli/serve.py, before that in vllm/scripts.py around
`make_arg_parser`. The modules have moved, so each thing is looked for in its places, the newest first.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any, List, NoReturn, Optional, Sequence, Tuple

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.check import ParsedFlags, ParseFlagsReply

COMMANDS = ("vllm.entrypoints.cli.serve",)
ARGUMENTS = ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
PARSERS = ("vllm.utils.argparse_utils", "vllm.utils")
SENTINEL = "@parsed "
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


class RefusedError(Exception):
    """The parser ended the program; the text is why."""


def answer() -> None:
    """Read what FSD_PARSE has, as JSON, and write the answer behind a sentinel; what vLLM prints goes to stderr.

    `{"lines": [argv from "serve" on], "seconds": n}` → `{"known": [flags], "parsed": [{"error", "unknown"}]}`, in
    their order, or `{"broken": why}`.
    """
    python = behind(shutil.which("vllm"))
    if python and python != sys.executable and not os.environ.get("FSD_PARSE_AGAIN"):
        os.environ["FSD_PARSE_AGAIN"] = "1"
        os.execv(python, [python, "-c", "import os; exec(os.environ['FSD_PARSE_PROGRAM'])"])
    question = json.loads(os.environ["FSD_PARSE"])
    signal.alarm(question["seconds"])
    os.environ.update(OFFLINE)
    out = os.dup(1)
    os.dup2(2, 1)
    text = "\n%s%s\n" % (SENTINEL, json.dumps(read(question["lines"])))
    with os.fdopen(out, "w") as file:
        file.write(text)
    os._exit(0)  # vLLM's threads and exit handlers have nothing to do


def behind(command: Optional[str]) -> Optional[str]:
    """Return the Python that a script names in its first line, or in the two lines that pip writes for long paths."""
    if command is None:
        return None
    with open(command, "rb") as file:
        first, second = (file.readline(4096).decode("utf-8", "replace").strip() for _ in range(2))
    words = shlex.split(first[2:]) if first.startswith("#!") else []
    if words[:1] == ["/bin/sh"] and second.startswith("'''exec'"):
        words = shlex.split(second[len("'''exec'") :])
    elif words and os.path.basename(words[0]) == "env":
        words = [shutil.which(word) or "" for word in words[1:] if not word.startswith("-")]
    named = words[0] if words else ""
    return named if re.match(r"python[0-9.]*$", os.path.basename(named)) else None


def read(lines: Sequence[List[str]]) -> ParseFlagsReply:
    """Return what the parser makes of each line; see `answer`."""
    sys.argv = ["vllm", "serve"]
    left: List[str] = []
    try:
        root, command = build(left)
    except BaseException as error:  # noqa: BLE001 (whatever an import raises is why vLLM cannot start)
        return {"broken": traceback.format_exception_only(type(error), error)[-1].strip()}
    options = root._subparsers._group_actions[0].choices["serve"]._option_string_actions
    flags = sorted(name[2:] for name in options if name.startswith("--"))
    return {"known": flags, "parsed": [parse(root, command, line, left) for line in lines]}


def parse(root: Any, command: Any, line: List[str], left: List[str]) -> ParsedFlags:
    """Return the flags that the parser left over, and its complaint, or that of what checks the values."""
    del left[:]
    error = ""
    try:
        namespace = root.parse_args(list(line))
        command.validate(namespace)
    except RefusedError as refused:
        error = str(refused)
    except (Exception, SystemExit) as wrong:  # noqa: BLE001 (vLLM's types of values raise what they like)
        error = str(wrong) or type(wrong).__name__
    unknown = [word.split("=")[0].lstrip("-") for word in left if word.startswith("-") and word.strip("-")]
    if left and not unknown and not error:
        error = "unrecognized arguments: " + " ".join(left)
    return {"error": error, "unknown": unknown}


def build(left: List[str]) -> Tuple[Any, Any]:
    """Return the parser of `vllm`, and its subcommand `serve`; what the parser doesn't know comes into `left`."""
    importlib.import_module("vllm")
    base = first_of(PARSERS, "FlexibleArgumentParser")

    class Parser(base):  # type: ignore[misc, valid-type]
        def exit(self, status: int = 0, message: Optional[str] = None) -> NoReturn:
            raise RefusedError((message or "").partition("error: ")[2].strip() or "it ends with %s" % status)

        def print_usage(self, file: Any = None) -> None:
            """Print nothing: it is pages long."""

    class Root(Parser):
        def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
            parsed, left[:] = super().parse_known_args(args, namespace)
            return parsed, []

    root = Root(prog="vllm")
    places = root.add_subparsers(dest="subparser", parser_class=Parser)
    try:
        (command,) = first_of(COMMANDS, "cmd_init")()
    except ModuleNotFoundError as error:
        if not COMMANDS[0].startswith(str(error.name)):
            raise
        return root, oldest(places)
    command.subparser_init(places)
    return root, command


def oldest(places: Any) -> Any:
    """Return `serve` as vLLM 0.6 made it."""
    serve = places.add_parser("serve")
    serve.add_argument("model_tag", nargs="?")
    serve.add_argument("--config")
    first_of(ARGUMENTS, "make_arg_parser")(serve)

    class Command:
        @staticmethod
        def validate(namespace: Any) -> None:
            try:
                check = first_of(ARGUMENTS, "validate_parsed_serve_args")
            except ImportError:
                return
            check(namespace)

    return Command


def first_of(modules: Sequence[str], name: str) -> Any:
    """Return a thing from the first module that has it. Raises what the last, or a broken one, raised."""
    failed: ImportError = ImportError(name)
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if not (module + ".").startswith(str(error.name) + "."):
                raise
            failed = error
        except AttributeError:
            failed = ImportError("cannot import name '%s' from '%s'" % (name, module))
    raise failed
