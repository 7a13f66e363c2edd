"""Programs that run on hosts, under the host's own Python (3.8 or later), from the standard library alone.

They import nothing of ours but each other. `transport/program.py` bundles them, sends the bundle over stdin to the
host's own `python3`, and reads the answers: lines `@fsd1 {json}` (see `wire.py`); all else a login prints is ignored.
A program is a module with `main(args)`: it takes the arguments as a dictionary, answers with `say`, and returns.
"""
