"""Look a host's key up in the file of RevokedHostKeys, which may be a key revocation list of OpenSSH's own form."""

from __future__ import annotations

import shutil
import subprocess
import tempfile

import paramiko

SECONDS = 30.0


def is_revoked(path: str, key: paramiko.PKey) -> bool:
    """Return whether a key, or the certificate that is shown with it, stands in a file; `ssh-keygen` reads that.

    A file that cannot be read, or not in 30 s, revokes every key, as in ssh.
    """
    program = shutil.which("ssh-keygen")
    if program is None:
        return True
    lines = [f"{key.get_name()} {key.get_base64()}"]
    if key.public_blob is not None:
        lines.append(str(key.public_blob))
    for line in lines:
        with tempfile.NamedTemporaryFile("w", suffix=".pub") as public:
            public.write(line + "\n")
            public.flush()
            words = [program, "-Q", "-f", path, public.name]
            try:
                subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=True)
            except subprocess.SubprocessError:
                return True
    return False
