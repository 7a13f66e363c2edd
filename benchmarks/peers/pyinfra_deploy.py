"""Do the same work with pyinfra: render a template, send it, run it, run one more command."""

import time
from pathlib import Path

from pyinfra.context import host
from pyinfra.operations import files, server

SCRIPT = f"/tmp/fsd-bench-{host.name}.sh"

files.template(src=str(Path(__file__).parent / "hello.sh.j2"), dest=SCRIPT, mode="755", host=host.name, now=time.time)
server.shell(commands=[f"bash {SCRIPT} > {SCRIPT}.log"])
server.shell(commands=[f"cat {SCRIPT}.log"])
