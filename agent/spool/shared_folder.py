"""A folder on a file server that may hang.

A process that accesses it then blocks in the kernel and can't be interrupted. So a thread does it, and is abandoned if
it does not return in time.
"""

from __future__ import annotations

import errno
from contextlib import suppress
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

    def ask(self, what: Callable[[], T], *, undo: Callable[[T], object] = lambda answer: None) -> T:
        """Calls ``what`` in a thread and returns its result.

        :param undo: takes back a result that comes too late, such as a lock that nobody would release.
        :raises OSError: that of ``what``; ETIMEDOUT if the server does not answer, and from then on at once.
        """
        import threading  # noqa: PLC0415  # a flush without other controllers needs none

        answers: list[T] = []
        errors: list[OSError] = []
        done = threading.Lock()

        def work() -> None:
            try:
                answer = what()
            except OSError as error:
                errors.append(error)
                return
            with done:
                if not self._hangs:
                    answers.append(answer)
                    return
            with suppress(OSError):
                undo(answer)

        if not self._hangs:
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            thread.join(self._patience_seconds)
            with done:
                self._hangs = thread.is_alive() and not answers
        if self._hangs:
            raise OSError(errno.ETIMEDOUT, "the file server does not answer", str(self.path))
        if errors:
            raise errors[0]
        return answers[0]
