"""Programs that run on a host: one file each, with `main(args)`, started by `transport/remote_program.py`."""
