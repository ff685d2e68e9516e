"""TCP ports for a lab, claimed so that concurrent labs never choose the same ones."""

from __future__ import annotations

import errno
import random
import socket

BLOCK = 16
FIRST, LAST = 20000, 32000  # below the ports that Linux uses for outgoing connections


def claim_ports(address: str) -> tuple[socket.socket, int]:
    """Finds :data:`BLOCK` ports in a row that are free on *address*; returns the claim and the first port.

    The claim is a bound UDP socket with the first port's number: a lock for the whole machine that is free
    again when its holder closes it or dies. Nothing in a lab uses UDP.
    """
    for first in random.sample(range(FIRST, LAST, BLOCK), 100):
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind((address, first))
            _try_to_listen(address, range(first, first + BLOCK))
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return claim, first
    raise OSError(errno.EADDRINUSE, f"no {BLOCK} free ports in a row on {address}")


def _try_to_listen(address: str, ports: range) -> None:
    for port in ports:
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind((address, port))
