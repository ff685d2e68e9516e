"""A folder on a file server that may hang.

Whoever looks into it then waits in the kernel and can't be called back. So a thread looks, and is left behind if it
does not return in time.
"""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Callable, TypeVar

T = TypeVar("T")

#: What waits for it here is a flush with finished jobs.
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
        """Does something there.

        :raises OSError: as it does. ETIMEDOUT where nothing answers, and from then on at once.
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
