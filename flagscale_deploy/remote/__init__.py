"""Programs that run on hosts, under the host's own Python (3.8 or later), from the standard library alone.

They import nothing of ours but each other. `transport/remote_program.py` bundles a program of `programs/` with what
it imports, sends the bundle over stdin to the host's own `python3`, and reads the replies: lines `@fsd1 {json}` (see
`wire.py`); all else a login prints is ignored.
"""
