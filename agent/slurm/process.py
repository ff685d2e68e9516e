"""The one place that starts processes: an argv, an environment, a time limit, and the whole group killed at it."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Callable, Mapping, NamedTuple, Sequence

from agent.errors import SlurmUnreachable
from agent.slurm.environment import DEFAULT_PATH

#: How long a killed child may take to be gone.
DEATH_SECONDS = 5
#: A longer output goes to a file that has no name, so that memory does not grow with it.
HELD_BYTES = 1 << 18
_BLOCK_BYTES = 1 << 16
#: The child of an exporter that was killed itself ends at its time limit, too.
_GUARD = shutil.which("timeout", path=DEFAULT_PATH)


class Output(NamedTuple):
    """What a finished child has left."""

    returncode: int
    stdout: IO[bytes]  # from its beginning
    stderr: str

    @property
    def text(self) -> str:
        """All of a short standard output."""
        self.stdout.seek(0)
        return self.stdout.read().decode("utf-8", "replace")


#: Runs a command to its end; whoever hands it in has chosen environment and time limit.
RunCommand = Callable[[Sequence[str]], Output]


class Child:
    """A child process whose output is collected while the caller does something else.

    :param argv: never a shell string.
    :param timeout: seconds after which the child and all its own children are killed.
    :raises SlurmUnreachable: where there is no such command.
    """

    def __init__(self, argv: Sequence[str], *, environment: Mapping[str, str], timeout: float) -> None:
        self._name = Path(argv[0]).name
        self._timeout = timeout
        self._timed_out = False
        self._full_disk: OSError | None = None
        self._stdout: IO[bytes] = tempfile.SpooledTemporaryFile(HELD_BYTES)  # noqa: SIM115  # gone with this object
        self._stderr = bytearray()
        try:
            self._process = subprocess.Popen(  # noqa: S603
                _guarded(argv, timeout),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise SlurmUnreachable(
                f"{argv[0]} cannot be started: {error.strerror}",
                hint=f"install Slurm's client tools, or set the path of {self._name} in the configuration; "
                "everything is kept",
            ) from error
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def wait(self) -> Output:
        """The output, once the child has ended.

        :raises SlurmUnreachable: where it ran into its time limit, or there is no room for what it printed.
        """
        self._reader.join(self._timeout + 2 * DEATH_SECONDS)
        if self._timed_out or self._reader.is_alive():
            raise SlurmUnreachable(
                f"{self._name} gave no answer within {self._timeout:g} s and was killed",
                hint="see that slurmdbd and its database answer; everything is kept, a later run asks again",
            )
        if self._full_disk:
            raise SlurmUnreachable(
                f"no room for what {self._name} prints: {self._full_disk.strerror}",
                hint="make room in the temporary folder, or name another in TMPDIR; everything is kept",
            ) from self._full_disk
        return Output(self._process.returncode, self._stdout, self._stderr.decode("utf-8", "replace"))

    def finish(self) -> Output:
        """The same; where the caller is interrupted while it waits, the child is killed."""
        try:
            return self.wait()
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends the child and its own children at once, if they live. Harmless afterwards."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):  # it ended between the two lines
                os.killpg(self._process.pid, signal.SIGKILL)

    def _collect(self) -> None:
        """In a thread: whatever the caller does, the child can print, and ends in time."""
        deadline = time.monotonic() + self._timeout
        try:
            self._read_pipes(deadline)
            self._stdout.seek(0)  # what is left in its buffer goes to the disk, too
            self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._timed_out = True
        except OSError as error:
            self._full_disk = error
        finally:
            self.kill()
            with suppress(subprocess.TimeoutExpired):  # asleep in the kernel: it dies when it wakes
                self._process.wait(DEATH_SECONDS)

    def _read_pipes(self, deadline: float) -> None:
        assert self._process.stdout and self._process.stderr  # noqa: PT018, S101
        with selectors.DefaultSelector() as selector, self._process.stdout, self._process.stderr:
            selector.register(self._process.stdout, selectors.EVENT_READ, self._stdout.write)
            selector.register(self._process.stderr, selectors.EVENT_READ, self._stderr.extend)
            while selector.get_map():
                ready = selector.select(max(deadline - time.monotonic(), 0))
                if not ready and time.monotonic() >= deadline:
                    raise subprocess.TimeoutExpired(self._name, self._timeout)
                for key, _ in ready:
                    block = os.read(key.fd, _BLOCK_BYTES)
                    key.data(block)
                    if not block:
                        selector.unregister(key.fileobj)


def _guarded(argv: Sequence[str], timeout: float) -> list[str]:
    if not _GUARD or not shutil.which(argv[0]):  # the latter is told by the failure to start it
        return list(argv)
    return [_GUARD, "-s", "KILL", str(timeout + DEATH_SECONDS), *argv]


def run(argv: Sequence[str], *, environment: Mapping[str, str], timeout: float) -> Output:
    """Runs a command to its end; see :class:`Child`."""
    return Child(argv, environment=environment, timeout=timeout).finish()
