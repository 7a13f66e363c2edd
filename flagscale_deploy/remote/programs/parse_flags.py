"""Has the vLLM of this host's environment read command lines, without starting anything.

main({venv, before_start, env, program, lines, seconds}): `program` is the text of `vllm_parser`, `lines` are argv from
"serve" on. Answers as that does, after `seconds` at the latest: {"known", "parsed"} or {"broken": why}.
"""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from typing import Any, Dict

from flagscale_deploy.remote.system import environment, subprocesses
from flagscale_deploy.remote.wire import say

SENTINEL = "@parsed "


def main(args: Dict[str, Any]) -> None:
    """Answer; see the module."""
    start = "import os; exec(os.environ['FSD_PARSE_PROGRAM'])"
    script = environment.script(args.get("venv"), args.get("before_start"), start)
    asked = {"lines": args["lines"], "seconds": int(args["seconds"]) + 1}
    given = {"FSD_PARSE": json.dumps(asked), "FSD_PARSE_PROGRAM": args["program"] + "\nanswer()\n"}
    place = tempfile.mkdtemp(prefix="fsd-parse-")  # `import vllm` makes directories that it does not remove
    given.update(TMPDIR=place, XDG_CACHE_HOME=place)
    try:
        ended = subprocesses.run(["bash", "-c", script], args["seconds"], {**args["env"], **given})
    except (OSError, ValueError) as error:  # no bash; a value that no environment can hold
        say(broken="bash did not start: %s" % error)
        return
    finally:
        shutil.rmtree(place, ignore_errors=True)
    say(**read(ended, args["seconds"]))


def read(ended: subprocesses.Ended, seconds: float) -> Dict[str, Any]:
    """The answer among whatever else was printed; else what went wrong, with its last words."""
    said = [line for line in ended.stdout.splitlines() if line.startswith(SENTINEL)]
    if ended.code == 0 and said:
        found: Dict[str, Any] = json.loads(said[-1][len(SENTINEL) :])
        return found
    if ended.code is None:
        return {"broken": "vLLM's parser did not answer within %g s" % seconds}
    how = signal.Signals(-ended.code).name if ended.code < 0 else "exit status %d" % ended.code
    last = [line.strip() for line in ended.stderr.splitlines() if line.strip()][-1:]
    return {"broken": ": ".join(["vLLM's parser ended with " + how, *last])}
