"""Submits jobs of all kinds continuously, until stopped."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

from tests.ha.hosts import Host
from tests.support.waiting import wait_for

#: A few jobs a second, by nobody, daemon and games (26.05 wants numbers): plain, arrays, failing, cancelled while they
#: wait, requeued. $STOP names a file.
PAIR = r"""
while [ ! -e "$STOP" ]; do
    user=$(shuf -n1 -e 65534 1 5) s=$((RANDOM % 8))
    run="timeout 30 sbatch --parsable --uid=$user -o /dev/null --chdir=/tmp"
    case $((RANDOM % 10)) in
    0) $run --array=1-4 --wrap "sleep $s" ;;
    1) id=$($run --begin=now+1hour --wrap true) && [ "$id" ] && sleep 1 && timeout 20 scancel "$id" ;;
    2) id=$($run --requeue --wrap 'sleep 6') && [ "$id" ] && sleep 2.5 && timeout 20 scontrol requeue "$id" ;;
    3) $run --wrap 'exit 3' ;;
    *) $run --wrap "sleep $s" ;;
    esac
    sleep "$PAUSE"
done
"""
#: On each controller of a federation: for either cluster, for both, to one of them, arrays, cancelled, requeued.
FEDERATION = r"""
while [ ! -e "$STOP" ]; do
    user=$(shuf -n1 -e 65534 1 5) other=$(shuf -n1 -e alpha beta alpha,beta)
    run="timeout 30 sbatch --parsable --uid=$user -o /dev/null --chdir=/tmp"
    case $((RANDOM % 9)) in
    0) $run -M $other --wrap "sleep $((RANDOM % 5))" ;;
    1) $run --array=1-4 --wrap "sleep $((RANDOM % 5))" ;;
    2) id=$($run --begin=now+1hour --wrap true); sleep 1; timeout 20 scancel "${id%%;*}" ;;
    3) id=$($run --requeue --wrap 'sleep 6'); sleep 3; timeout 20 scontrol requeue "${id%%;*}" ;;
    4) $run --wrap 'exit 3' ;;
    5) $run --cluster-constraint= -n 2 --wrap 'sleep 1' ;;
    6) $run -n 60 --wrap 'sleep 3' ;;
    *) $run --wrap "sleep $((RANDOM % 5))" ;;
    esac
    sleep "$PAUSE"
done
"""


class Submitting:
    """Submits jobs as long as its ``with`` lasts.

    :param pause_seconds: between two submissions.
    """

    def __init__(self, host: Host, script: str = PAIR, *, pause_seconds: float = 0.2) -> None:
        self._host = host
        self._stop = host.disk / "stop-submitting"
        self._script = f"STOP={self._stop} PAUSE={pause_seconds}\n{script}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Submitting:
        self._stop.unlink() if self._stop.exists() else None
        self._process = self._host.start("bash", "-c", self._script, log="submitted.log")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Path(self._stop).touch()
        process = self._process
        if process:
            wait_for(lambda: process.poll() is not None, "the end of the submitting", limit_seconds=70)
