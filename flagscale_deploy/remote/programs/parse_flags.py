"""Have the vLLM of this host's environment read command lines, without starting anything."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import tempfile
from typing import TYPE_CHECKING, Callable, cast

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.system import environment, json_files, subprocesses

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.check import ParseFlagsArguments, ParseFlagsReply

send: Callable[[ParseFlagsReply], None] = wire.send

SENTINEL = "@parsed "


def main(args: ParseFlagsArguments) -> None:
    """Reply after `seconds` at the latest."""
    start = "import os; exec(os.environ['FSD_PARSE_PROGRAM'])"
    script = environment.script(args.get("venv"), args.get("before_start"), start, args.get("exports") or "")
    question = {"lines": args["lines"], "seconds": int(args["seconds"]) + 1}
    given = {"FSD_PARSE": json.dumps(question), "FSD_PARSE_PROGRAM": args["program"] + "\nanswer()\n"}
    place = tempfile.mkdtemp(prefix="fsd-parse-")  # `import vllm` makes directories that it does not remove
    given.update(TMPDIR=place, XDG_CACHE_HOME=place)
    try:
        ended = subprocesses.run(["bash", "-c", script], args["seconds"], {**args["env"], **given})
    except (OSError, ValueError) as error:  # no bash; a value that no environment can hold
        send({"broken": "bash did not start: %s" % error})
        return
    finally:
        shutil.rmtree(place, ignore_errors=True)
    send(read(ended, args["seconds"]))


def read(ended: subprocesses.Ended, seconds: float) -> ParseFlagsReply:
    """Return the reply among whatever else was printed; else what went wrong, with its last words."""
    marked = [line for line in ended.stdout.splitlines() if line.startswith(SENTINEL)]
    if ended.code == 0 and marked:
        with contextlib.suppress(ValueError):
            return cast("ParseFlagsReply", json_files.parse_object(marked[-1][len(SENTINEL) :]))
        return {"broken": "vLLM's parser gave no answer that can be read"}
    if ended.code is None:
        return {"broken": "vLLM's parser did not answer within %g s" % seconds}
    how = signal.Signals(-ended.code).name if ended.code < 0 else "exit status %d" % ended.code
    last = [line.strip() for line in ended.stderr.splitlines() if line.strip()][-1:]
    return {"broken": ": ".join(["vLLM's parser ended with " + how, *last])}
