"""A sacct that replays a real one's output, and fails like real ones, or worse.

For tests that need hundreds of runs of the exporter and no Slurm. The rows and failures were recorded on 22.05.8, see
``tests/faults/recorded/README.md``. This file is also the program itself.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence

RECORDED = Path(__file__).parents[1] / "faults" / "recorded"
SEPARATOR = "\x1f"


class ReplayedSacct:
    """A program in a folder of its own.

    ``manners`` name what happens to a call: nothing special if there are none, "hang", "half" (some rows, then exit 1),
    "cut" (in the middle of a row, exit 0), "complain" (all rows, exit 0, but an error on standard error), "empty",
    or the name of a recorded failure: "no_slurmdbd" or "no_mariadb".

    :param python: the interpreter that runs it.
    """

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self._folder = folder
        folder.mkdir()
        program = shutil.copy(__file__, folder)  # everyone who can read the folder can run it
        shutil.copy(RECORDED / "failures.json", folder)
        self.path = folder / "sacct"
        self.path.write_text(f'#!/bin/sh\nexec {python} -S -E {program} {folder} "$@"\n')
        self.path.chmod(0o755)
        squeue = folder / "squeue"  # job 101 was requeued and held; slurmctld has forgotten all others
        squeue.write_text("#!/bin/sh\necho '101|PENDING'\n")
        squeue.chmod(0o755)
        self.rows = (RECORDED / "rows.txt").read_text().split("\n")[:-1]
        self.behave("")

    @property
    def rows(self) -> list[str]:
        """Its header and rows."""
        return (self._folder / "rows").read_text().split("\n")[:-1]

    @rows.setter
    def rows(self, rows: Iterable[str]) -> None:
        (self._folder / "rows").write_text("".join(f"{row}\n" for row in rows))

    def make_jobs(self, jobs: int, first_end: int) -> None:
        """Makes it know only that many similar jobs, from JobID 1 on, one ending every other second."""
        header = self.rows[0]
        values = dict(zip(header.split(SEPARATOR), self.rows[1].split(SEPARATOR)))
        made = {"jobs": jobs, "first_end": first_end, "values": {**values, "NodeList": "n1"}}
        (self._folder / "made").write_text(json.dumps(made))

    def behave(self, manners: str, *then: str) -> None:
        """Sets what happens to the next calls, in turn; the last one also applies to all later calls."""
        (self._folder / "manners").write_text("\n".join([manners, *then]))

    @property
    def calls(self) -> int:
        """The number of calls that asked for rows."""
        log = self._folder / "calls"
        return len(log.read_text().splitlines()) if log.exists() else 0


def main(folder: Path, arguments: Sequence[str]) -> int:
    """Answers a single call."""
    header, *recorded = (folder / "rows").read_text().split("\n")[:-1]
    rows: Iterable[str] = recorded
    if "--helpformat" in arguments:
        print(header.replace(SEPARATOR, " "))
        return 0
    with (folder / "calls").open("a") as log:
        log.write(f"{arguments}\n")
    options = dict(argument[2:].split("=", 1) for argument in arguments if "=" in argument)
    assert options["format"] == header.replace(SEPARATOR, ","), "the fields that were recorded"
    if (folder / "made").exists():
        rows = make_rows(json.loads((folder / "made").read_text()), header, options)
    shown = [row for row in rows if is_asked(row, header, options)]
    header, *shown = (row.replace(SEPARATOR, options["delimiter"]) for row in (header, *shown))
    return answer(take_manners(folder / "manners"), header, shown, folder / "failures.json")


def take_manners(path: Path) -> str:
    """The next word, or the last again."""
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        word, *rest = file.read().split("\n")
        if rest:
            file.seek(0)
            file.truncate()
            file.write("\n".join(rest))
    return word


def make_rows(made: dict[str, Any], header: str, options: dict[str, str]) -> Iterator[str]:
    """The rows of the generated jobs that the call may ask for."""
    first_end = made["first_end"]
    if "jobs" in options:
        numbers: Iterable[int] = map(int, options["jobs"].split(","))
    else:
        start, end = (int(options[name][3:]) for name in ("starttime", "endtime"))
        numbers = range(max((start - first_end) // 2, 0) + 1, min((end - first_end) // 2 + 2, made["jobs"] + 1))
    for number in numbers:
        end = first_end + 2 * (number - 1)
        times = {"Submit": end - 90, "Start": end - 60, "End": end, "ElapsedRaw": 60}
        values = {**made["values"], **times, "JobID": number, "JobIDRaw": number}
        yield SEPARATOR.join(str(values[name]) for name in header.split(SEPARATOR))


def is_asked(row: str, header: str, options: dict[str, str]) -> bool:
    """Whether sacct would show a row; if IDs are given, the times of the jobs do not matter."""
    values = dict(zip(header.split(SEPARATOR), row.split(SEPARATOR)))
    if "jobs" in options:
        names = {
            values["JobID"],
            values["JobIDRaw"],
            values["JobID"].partition("_")[0],
            values["JobID"].partition("+")[0],
        }
        return bool(names & set(options["jobs"].split(",")))
    start, end = (int(options[name][3:]) for name in ("starttime", "endtime"))
    going_on = {"REQUEUED": "RQ", "RESIZING": "RS", "PREEMPTED": "PR", "NODE_FAIL": "NF"}
    wanted = options["state"].split(",")
    known = going_on.get(values["State"]) in wanted if values["State"] in going_on else "CD" in wanted
    return values["End"].isdigit() and start <= int(values["End"]) <= end and known


def answer(manners: str, header: str, rows: list[str], failures: Path) -> int:
    """Prints an answer, changed by the manners, and returns the exit status."""
    if manners == "hang":
        time.sleep(3600)
    elif manners == "half":
        print("\n".join([header, *rows[: len(rows) // 2]]))
        return 1
    elif manners == "cut":
        text = "\n".join([header, *rows])
        print(text[: (len(header) + len(text)) // 2], end="")
    elif manners == "empty":
        print(header)
    elif manners in {"", "complain"}:
        print("\n".join([header, *rows]))
        if manners:
            print("sacct: error: slurmdbd: Unexpected message received", file=sys.stderr)
    else:
        failure = json.loads(failures.read_text())[manners]
        print(failure["stdout"], end="")
        print(failure["stderr"], end="", file=sys.stderr)
        return int(failure["returncode"])
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
