"""Run the gate: `python3 -m flagscale_deploy.gate CONFIG.json`."""

import sys

from flagscale_deploy.gate.program import command

if __name__ == "__main__":
    command(sys.argv[1:])
