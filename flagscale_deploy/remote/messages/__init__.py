"""The messages between the operator and the programs of `remote/programs/`, as types that both sides are checked by.

Of each program: `…Arguments` go with it, `…Order`s follow on its standard input, `…Reply`s come back on its standard
output, each a line of JSON. A reply whose keys are all optional is one of several messages; its fields say which of
them come together. Times are in seconds, sizes in bytes, points in time Unix seconds by the host's clock, unless a
name or a comment says otherwise.

Programs import this for type checking only: nothing of it is sent to hosts (see `transport/bundle.py`).
"""
