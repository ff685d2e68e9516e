"""The only place that starts processes. Each has an argv, an environment and a time limit."""

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

#: How long a killed child may take to exit.
DEATH_SECONDS = 5
#: Output beyond this goes to an unnamed temporary file, so that memory use stays bounded.
HELD_BYTES = 1 << 18
_BLOCK_BYTES = 1 << 16
#: Also ends the child at its time limit if the exporter itself has been killed.
_GUARD = shutil.which("timeout", path=DEFAULT_PATH)


class Output(NamedTuple):
    """The exit status and output of a finished child."""

    returncode: int
    stdout: IO[bytes]  # from its beginning
    stderr: str

    @property
    def text(self) -> str:
        """The whole standard output, for commands that print little."""
        self.stdout.seek(0)
        return self.stdout.read().decode("utf-8", "replace")


#: Runs a command to its end, with the environment and time limit chosen by the caller.
RunCommand = Callable[[Sequence[str]], Output]


class Child:
    """A child process whose output is collected in the background.

    :param argv: the command and its arguments, never a shell string.
    :param timeout: seconds after which the child and its descendants are killed.
    :raises SlurmUnreachable: if the command can't be started.
    """

    def __init__(self, argv: Sequence[str], *, environment: Mapping[str, str], timeout: float) -> None:
        self._name = Path(argv[0]).name
        self._timeout = timeout
        self._timed_out = False
        self._full_disk: OSError | None = None
        self._stdout: IO[bytes] = tempfile.SpooledTemporaryFile(HELD_BYTES)  # noqa: SIM115  # closed with this object
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
        """Waits for the child to end and returns its output.

        :raises SlurmUnreachable: if it exceeded its time limit, or its output did not fit on the disk.
        """
        self._reader.join(self._timeout + 2 * DEATH_SECONDS)
        if self._timed_out or self._reader.is_alive():
            raise SlurmUnreachable(
                f"{self._name} did not answer within {self._timeout:g} s and was killed",
                hint="check that slurmdbd and its database respond; everything is kept, and a later run asks again",
            )
        if self._full_disk:
            raise SlurmUnreachable(
                f"cannot store the output of {self._name}: {self._full_disk.strerror}",
                hint="free some space in the temporary folder, or set TMPDIR to another one; everything is kept",
            ) from self._full_disk
        return Output(self._process.returncode, self._stdout, self._stderr.decode("utf-8", "replace"))

    def finish(self) -> Output:
        """Like :meth:`wait`, but kills the child if the caller is interrupted meanwhile."""
        try:
            return self.wait()
        finally:
            self.kill()

    def kill(self) -> None:
        """Kills the child and its descendants if they still run; safe to call again."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):  # it may end between the two lines
                os.killpg(self._process.pid, signal.SIGKILL)

    def _collect(self) -> None:
        """Runs in a thread, so that the child can print and is killed in time whatever the caller does."""
        deadline = time.monotonic() + self._timeout
        try:
            self._read_pipes(deadline)
            self._stdout.seek(0)  # writes its buffer to the disk, which may be full
            self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._timed_out = True
        except OSError as error:
            self._full_disk = error
        finally:
            self.kill()
            with suppress(subprocess.TimeoutExpired):  # in uninterruptible sleep: it exits when it wakes
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
    if not _GUARD or not shutil.which(argv[0]):  # a missing command is reported when starting it fails
        return list(argv)
    return [_GUARD, "-s", "KILL", str(timeout + DEATH_SECONDS), *argv]


def run(argv: Sequence[str], *, environment: Mapping[str, str], timeout: float) -> Output:
    """Runs a command to its end; see :class:`Child`."""
    return Child(argv, environment=environment, timeout=timeout).finish()
