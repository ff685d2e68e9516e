"""The one place that starts processes: an argv, a clean environment, a time limit, and the whole group killed at it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

from agent.errors import SlurmUnreachable

#: What a child may inherit; everything else that a shell or a unit sets could change what Slurm prints.
INHERITED = ("LD_LIBRARY_PATH", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_SOCKET")
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin:/opt/slurm/bin"
#: How long a killed child may take to be gone.
DEATH_SECONDS = 5
#: The child of an exporter that was killed itself ends at its time limit, too.
_GUARD = shutil.which("timeout", path=DEFAULT_PATH)


class Output(NamedTuple):
    """What a finished child has left."""

    returncode: int
    stdout: bytes
    stderr: str


def make_environment(environ: Mapping[str, str], **changes: str) -> dict[str, str]:
    """The environment of a child: a PATH, UTF-8, what Slurm needs to find its controller, and ``changes``."""
    inherited = {name: environ[name] for name in INHERITED if name in environ}
    path = environ.get("PATH") or DEFAULT_PATH
    return {"PATH": path, "LC_ALL": "C.UTF-8", **inherited, **changes}


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
        self._output = (b"", b"")
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

        :raises SlurmUnreachable: where it ran into its time limit.
        """
        self._reader.join(self._timeout + 2 * DEATH_SECONDS)
        if self._timed_out or self._reader.is_alive():
            raise SlurmUnreachable(
                f"{self._name} gave no answer within {self._timeout:g} s and was killed",
                hint="see that slurmdbd and its database answer; everything is kept, a later run asks again",
            )
        stdout, stderr = self._output
        return Output(self._process.returncode, stdout, stderr.decode("utf-8", "replace"))

    def kill(self) -> None:
        """Ends the child and its own children at once, if they live. Harmless afterwards."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):  # it ended between the two lines
                os.killpg(self._process.pid, signal.SIGKILL)

    def _collect(self) -> None:
        try:
            self._output = self._process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            self._timed_out = True
            self.kill()
            with suppress(subprocess.TimeoutExpired):  # asleep in the kernel: it dies when it wakes
                self._process.communicate(timeout=DEATH_SECONDS)


def _guarded(argv: Sequence[str], timeout: float) -> list[str]:
    if not _GUARD or not shutil.which(argv[0]):  # the latter is told by the failure to start it
        return list(argv)
    return [_GUARD, "-s", "KILL", str(timeout + DEATH_SECONDS), *argv]


def run(argv: Sequence[str], *, environment: Mapping[str, str], timeout: float) -> Output:
    """Runs a command to its end; see :class:`Child`."""
    child = Child(argv, environment=environment, timeout=timeout)
    try:
        return child.wait()
    finally:
        child.kill()
