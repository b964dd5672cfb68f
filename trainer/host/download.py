"""Downloads a file with progress and cancellation."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from trainer.host.progress import Progress

_BLOCK_BYTES = 1 << 18
_TIMEOUT_S = 20.0


def download(url: str, target: Path, progress: Progress) -> None:
    """Download a file to `target`, replacing it; an interrupted download leaves a partial file.

    The address must be https and from this program, never from a user. `progress` is called every 256 KiB and may raise
    to cancel. OSError when the network or the disk fails, or less data came than announced.
    """
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply, target.open("wb") as file:  # noqa: S310 - see above
        total = int(reply.headers.get("Content-Length", 0))
        done = 0
        while block := reply.read(_BLOCK_BYTES):
            file.write(block)
            done += len(block)
            progress(f"downloading {Path(url).name}, {done / 1e6:.0f} MB", done / total if total else None)
    if total and done != total:
        raise OSError(f"the connection ended after {done:,} of {total:,} bytes")
