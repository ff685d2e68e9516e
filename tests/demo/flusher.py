"""A short timer that runs flush, like systemd's."""

from __future__ import annotations

import subprocess
import threading

from tests.support.exporter import Exporter


class Flusher:
    """Runs flush repeatedly as a separate process while its ``with`` block runs.

    :param interval_seconds: the pause between two runs.
    """

    def __init__(self, exporter: Exporter, interval_seconds: float) -> None:
        self.runs = 0
        #: The output of the runs that failed.
        self.failures: list[str] = []
        self._exporter = exporter
        self._interval = interval_seconds
        self._stopping = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Flusher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._process and self._process.poll() is None:
            self._process.terminate()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stopping.wait(self._interval):
            self._process = self._exporter.start("flush")
            said, _ = self._process.communicate()
            self.runs += 1
            if self._process.returncode and not self._stopping.is_set():
                self.failures.append(said)
