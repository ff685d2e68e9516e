"""A folder on a file server that may hang.

A process that accesses it then blocks in the kernel and can't be interrupted. So a thread does it, and is abandoned if
it does not return in time.
"""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Callable, TypeVar

T = TypeVar("T")

#: Short, as a flush with finished jobs is waiting for it.
FOLDER_PATIENCE_SECONDS = 10.0


class SharedFolder:
    """The folder that the controllers of a cluster share.

    :param patience_seconds: how long an answer may take.
    """

    def __init__(self, path: Path, *, patience_seconds: float = FOLDER_PATIENCE_SECONDS) -> None:
        self.path = path
        self._patience_seconds = patience_seconds
        self._hangs = False

    def ask(self, what: Callable[[], T]) -> T:
        """Calls ``what`` in a thread and returns its result.

        :raises OSError: that of ``what``; ETIMEDOUT if the server does not answer, and from then on at once.
        """
        answers: list[T] = []
        errors: list[OSError] = []

        def work() -> None:
            try:
                answers.append(what())
            except OSError as error:
                errors.append(error)

        if not self._hangs:
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            thread.join(self._patience_seconds)
            self._hangs = thread.is_alive()
        if self._hangs:
            raise OSError(errno.ETIMEDOUT, "the file server does not answer", str(self.path))
        if errors:
            raise errors[0]
        return answers[0]
