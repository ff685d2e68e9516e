"""What can happen to a request, to be put into a :class:`~tests.support.dashboard.ReceivingDashboard`'s ``faults``."""

from __future__ import annotations

import json
from typing import Any, Callable, Sequence

from .dashboard import Answer, Connection, Fault, Request, behave

__all__ = ["answer", "behave", "drip", "hang", "raw", "reset", "rewrite", "store_and_reset"]


def answer(status: int, body: Any = "", **headers: str) -> Fault:
    """Answers so and stores nothing; underscores in the headers' names stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _, connection, serve: connection.send(Answer(status, body, named))


def rewrite(change: Callable[[Answer], Answer]) -> Fault:
    """Does what was asked, and answers something else."""
    return lambda _, connection, serve: connection.send(change(serve()))


def raw(make: Callable[[int, bytes], Sequence[bytes]], *, close: bool = False) -> Fault:
    """Does what was asked, and answers in an unusual form.

    :param make: takes the status and the JSON of the usual answer, returns the bytes to send.
    :param close: whether the connection ends with the answer.
    """

    def fault(_: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
        usual = serve()
        connection.send_raw(*make(usual.status, json.dumps(usual.body).encode()), close=close)

    return fault


def hang(seconds: float = 3600) -> Fault:
    """Takes the request and is silent for a while, then answers as if nothing had been."""

    def fault(_: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
        connection.hang(seconds)
        connection.send(serve())

    return fault


def drip(seconds_a_byte: float) -> Fault:
    """Stores, and answers one byte at a time."""
    return lambda _, connection, serve: connection.send(serve(), drip_seconds=seconds_a_byte)


def reset(_: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
    """Breaks the connection off before anything was stored."""
    connection.reset()


def store_and_reset(_: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
    """Stores everything, and breaks the connection off before it can say so."""
    serve()
    connection.reset()
