"""How hosts exchange pieces during a push, once the handshake has shown that both belong to it.

The client asks for pieces by number, 4 bytes each; the reply is a byte that says whether the piece is there, its size
in 8 bytes, and its bytes. Nothing can be sent to a host that it did not ask for. Bytes are not encrypted; a change on
the way is detected by the hashes, which came through SSH.
"""

from __future__ import annotations

import struct

REQUEST, REPLY = struct.Struct("!I"), struct.Struct("!BQ")
PRESENT, ABSENT = 1, 0
SLOWEST = 8 << 10
"""Bytes a second. A piece that comes more slowly is given up, however regularly its bytes come."""
