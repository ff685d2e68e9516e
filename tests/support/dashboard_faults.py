"""Faults for the ``faults`` of a :class:`~tests.support.dashboard.ReceivingDashboard`."""

from __future__ import annotations

import json
from typing import Any, Callable, Sequence

from .dashboard import Answer, Connection, Fault, Request, behave

__all__ = ["answer", "behave", "drip", "hang", "raw", "reset", "rewrite", "store_and_reset"]


def answer(status: int, body: Any = "", **headers: str) -> Fault:
    """Gives that answer and stores nothing; underscores in the headers' names become dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _, connection, serve: connection.send(Answer(status, body, named))


def rewrite(change: Callable[[Answer], Answer]) -> Fault:
    """Serves the request, but answers something else."""
    return lambda _, connection, serve: connection.send(change(serve()))


def raw(make: Callable[[int, bytes], Sequence[bytes]], *, close: bool = False) -> Fault:
    """Serves the request, and answers in an unusual form.

    :param make: takes the status and the JSON of the usual answer, returns the bytes to send.
    :param close: whether the connection ends with the answer.
    """

    def fault(_: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
        usual = serve()
        connection.send_raw(*make(usual.status, json.dumps(usual.body).encode()), close=close)

    return fault


def hang(seconds: float = 3600) -> Fault:
    """Accepts the request, is silent for a while, and then answers normally."""

    def fault(_: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
        connection.hang(seconds)
        connection.send(serve())

    return fault


def drip(seconds_a_byte: float) -> Fault:
    """Serves the request, and answers one byte at a time."""
    return lambda _, connection, serve: connection.send(serve(), drip_seconds=seconds_a_byte)


def reset(_: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
    """Resets the connection before anything is stored."""
    connection.reset()


def store_and_reset(_: Request, connection: Connection, serve: Callable[[], Answer]) -> None:
    """Stores everything, and resets the connection before answering."""
    serve()
    connection.reset()
