"""A mixed bag of jobs: a cluster's day in a minute."""

from __future__ import annotations

import pwd
import random

from tests.support.job_kinds import KINDS
from tests.support.slurm import Slurm

#: System accounts that exist nearly everywhere; a missing one submits nothing.
USERS = ("nobody", "daemon", "games", "mail", "news", "backup", "www-data")
ACCOUNTS = ("astro", "chemistry", "genomics", "physics")
PARTITIONS = ("PartitionName=gpu Nodes=n1 MaxTime=INFINITE", "PartitionName=long Nodes=n[2-3] MaxTime=INFINITE")
#: The kinds whose jobs must be acted on; all other jobs run by themselves.
SPECIAL = tuple(name for name in KINDS if name not in ("plain", "burst"))
LARGEST_ARRAY = 40
FEW = 6  # there are six GPUs: larger arrays would wait for them all day


def run(slurm: Slurm, wanted: int, dice: random.Random) -> None:
    """Submits at least *wanted* jobs: one of each special kind, then arrays and single jobs of all sizes."""
    special = {name: KINDS[name].submit(slurm) for name in SPECIAL}
    submitted = sum(len(KINDS[name].records(job)) for name, job in special.items())
    while submitted < wanted:
        size = min(dice.choice((1, 1, 1, dice.randint(2, LARGEST_ARRAY))), wanted - submitted)
        slurm.sbatch(*_options(dice, size), command=_command(dice))
        submitted += size
    for name, job in special.items():
        KINDS[name].act(slurm, job)


def _options(dice: random.Random, size: int) -> list[str]:
    uids = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    # By number: sbatch of 26.05 does not accept "nobody".
    uid = uids[dice.choice([user for user in USERS if user in uids])]
    options = [f"--uid={uid}", f"--account={dice.choice(ACCOUNTS)}"]
    gpus = dice.choice(("", "", "", "gpu:1", "gpu:a100:2", "gpu:h100:1")) if size < FEW else ""
    if gpus:
        options += ["--partition=gpu", f"--gres={gpus}"]
    else:
        options += [
            f"--partition={dice.choice(('main', 'long'))}",
            f"-n{dice.randint(1, 8)}",
            f"-N1-{dice.randint(1, 2)}",
        ]
    return [*options, f"--array=1-{size}"] if size > 1 else options


def _command(dice: random.Random) -> str:
    """Runs up to three seconds; of an array every seventh task fails."""
    return f"sleep {dice.uniform(0, 3):.1f}; exit $((${{SLURM_ARRAY_TASK_ID:-{dice.randint(1, 14)}}} % 7 == 0))"
