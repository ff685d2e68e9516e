"""A hanging file server: ``frozen.py FOLDER`` mounts a FUSE filesystem over a folder and answers no request.

Processes that access the folder hang until standard input ends. Then the filesystem is unmounted, their calls fail,
and the folder's files are visible again.
"""

from __future__ import annotations

import os
import subprocess
import sys


def main(folder: str) -> None:
    """Freezes a folder while standard input is open."""
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    subprocess.run(
        ["mount", "-i", "-t", "fuse", "-o", options, "frozen", folder], check=True, pass_fds=[device], timeout=10
    )
    print("frozen", flush=True)
    sys.stdin.read()
    os.close(device)  # the kernel fails all pending requests
    subprocess.run(["umount", "-l", folder], check=True, timeout=10)


if __name__ == "__main__":
    main(sys.argv[1])
