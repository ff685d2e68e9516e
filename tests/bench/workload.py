"""Fills slurmdbd's database with finished jobs as a cluster would have left them: rows straight into its tables.

A workload depends only on its parameters, so two runs on the same day measure the same jobs. Of a hundred jobs thirty
are tasks of arrays, twenty have GPUs, five belong to a user that no longer resolves, two were cancelled while pending
and one was requeued once; some have not ended yet. They wait for up to two days and run for up to three, as many of
them for seconds as for minutes, hours and days.
"""

from __future__ import annotations

from typing import Callable, Iterator, NamedTuple

DAY = 86_400
USERS, ACCOUNTS = 200, 20
FIRST_JOB_ID = 1000
#: Rows in one INSERT: MariaDB undoes and logs each as a whole.
CHUNK = 250_000

Sql = Callable[[str], "list[dict[str, str]]"]


class Workload(NamedTuple):
    """The jobs of one cluster, spread evenly over the days up to ``end`` except as the fields say."""

    cluster: str
    jobs: int
    days: int
    end: int  # epoch seconds
    steps: int = 2  # of each job that has started
    #: This share of all jobs was submitted in the last ten days.
    crowded: float = 0.0
    #: The number of consecutive jobs that were cancelled while pending, all within one second.
    cancelled_at_once: int = 0

    @property
    def start(self) -> int:
        """The first Submit, in epoch seconds."""
        return self.end - self.days * DAY


def month(end: int, scale: float = 1.0) -> Workload:
    """A busy cluster's month: 500,000 jobs with two steps each."""
    return Workload("month", int(500_000 * scale), 30, end)


def year(end: int, scale: float = 1.0) -> Workload:
    """A large cluster's year: 5,000,000 jobs, two fifths of them within ten days, and a cancellation in bulk."""
    return Workload("year", int(5_000_000 * scale), 365, end, crowded=0.4, cancelled_at_once=int(30_000 * scale))


def fill(workload: Workload, sql: Sql, sacctmgr: Callable[..., str]) -> int:
    """Adds the cluster with all its jobs to the accounting, and returns the number of rows."""
    cluster = workload.cluster
    users = ",".join(f"u{number:03d}" for number in range(USERS))
    accounts = ",".join(f"acct{number:02d}" for number in range(ACCOUNTS))
    sacctmgr("add", "cluster", cluster)
    sacctmgr("add", "account", accounts, f"cluster={cluster}", "Organization=bench", "Description=bench")
    sacctmgr("add", "user", users, f"cluster={cluster}", "account=acct00")
    for statement in _statements(workload, _gpu_ids(sql)):
        sql(statement)
    sql(f"analyze table {cluster}_job_table, {cluster}_step_table")
    return int(sql(f"select count(*) as jobs from {cluster}_job_table")[0]["jobs"])


def ended_jobs(sql: Sql, cluster: str, start: int, end: int) -> int:
    """How many jobs finally ended between two instants, inclusive: counted in the table, without Slurm."""
    (row,) = sql(
        f"select count(*) as jobs from {cluster}_job_table j"
        f" where time_end between {start} and {end} and state between 3 and 11 and not exists"
        f" (select 1 from {cluster}_job_table n where n.id_job = j.id_job and n.time_submit > j.time_submit)"
    )
    return int(row["jobs"])


def _gpu_ids(sql: Sql) -> tuple[str, str, str]:
    ids = {row["name"]: row["id"] for row in sql("select id, name from tres_table where type = 'gres'")}
    return ids["gpu"], ids["gpu:a100"], ids["gpu:h100"]


def _statements(workload: Workload, gpu_ids: tuple[str, str, str]) -> Iterator[str]:
    for first in range(0, workload.jobs, CHUNK):
        last = min(first + CHUNK, workload.jobs) - 1
        yield _insert_jobs(workload, gpu_ids, first, last)
    table = f"{workload.cluster}_job_table"
    yield _insert_requeued_runs(table)
    top = FIRST_JOB_ID + workload.jobs
    for first in range(FIRST_JOB_ID, top, CHUNK):
        for step in range(workload.steps):
            yield _insert_steps(workload.cluster, step, first, min(first + CHUNK, top) - 1)


def _insert_jobs(workload: Workload, gpu_ids: tuple[str, str, str], first: int, last: int) -> str:
    """Turns numbers into jobs: each column is computed from the job's number and its hashes."""
    gpu, a100, h100 = gpu_ids
    total, start, end = workload.jobs, workload.start, workload.end
    once_from = total // 2
    once_to = once_from + workload.cancelled_at_once - 1
    once_at = start + workload.days * DAY // 2
    return f"""
set session unique_checks = 0;
insert into {workload.cluster}_job_table (job_db_inx, mod_time, account, array_task_str, cpus_req, job_name, id_assoc,
  id_array_job, id_array_task, id_job, id_qos, id_resv, id_wckey, id_user, id_group, het_job_id, het_job_offset,
  state_reason_prev, nodelist, nodes_alloc, node_inx, `partition`, priority, state, timelimit, time_submit,
  time_eligible, time_start, time_end, work_dir, submit_line, tres_alloc, tres_req)
with numbers as (
  select seq, crc32(seq * 2654435761) as a, crc32(seq * 40503 + 7) as b, crc32(seq * 97 + 13) as c,
    seq % 1000 < 300 as in_array, if(seq % 1000 < 300, seq - seq % 100, seq) as came
  from seq_{first}_to_{last}
), shapes as (
  select *, seq between {once_from} and {once_to} as at_once,
    {_submit_sql(workload)} as submit,
    floor(pow({2 * DAY}, (a % 1000003) / 1000003)) as wait, floor(pow({3 * DAY}, (b % 1000003) / 1000003)) as run,
    pow(2, c % 7) as cpus, c % 100 < 20 as has_gpus, 1 + c % 2 as gpus, b % 100 < 2 as never_ran
  from numbers
), times as (
  select *, at_once or never_ran as idle, if(at_once, {once_at}, submit + wait + if(never_ran, 0, run)) as ends
  from shapes
), jobs as (
  select *, ends <= {end} as has_ended, ends <= {end} or submit + wait <= {end} as has_started from times
)
select null, if(has_ended, ends, submit), concat('acct', lpad(a % {ACCOUNTS}, 2, '0')), null, cpus, 'bench',
  if(a % 100 < 95, (select min(id_assoc) from {workload.cluster}_assoc_table where user = 'u000') + a % {USERS}, 0),
  if(in_array, {FIRST_JOB_ID} + came, 0), if(in_array, (seq + 99) % 100, 4294967294), {FIRST_JOB_ID} + seq, 1, 0, 0,
  if(a % 100 < 95, 5000000 + a % {USERS}, 6000000 + a % 50), 5000000, 0, 4294967294, 0,
  if(idle or not has_started, 'None assigned', if(cpus > 32, 'node[101-102]', concat('node', 100 + c % 800))),
  if(idle or not has_started, 0, if(cpus > 32, 2, 1)), '0', if(has_gpus, 'gpu', 'cpu'), 1000,
  case when not has_ended then if(has_started, 1, 0) when idle then 4 when b % 1000 < 900 then 3 when b % 1000 < 940
    then 5 when b % 1000 < 970 then 6 when b % 1000 < 990 then 4 when b % 1000 < 998 then 11 else 7 end,
  4320, submit, submit, if(idle or not has_started, 0, ends - run), if(has_ended, ends, 0), '/home/bench/project',
  'sbatch job.sh',
  if(idle or not has_started, '', concat('1=', cpus, ',2=', cpus * 4000, ',4=', if(cpus > 32, 2, 1), ',5=', cpus,
    if(has_gpus, concat(',{gpu}=', gpus, ',', if(c % 3, '{a100}', '{h100}'), '=', gpus), ''))),
  concat('1=', cpus, ',2=', cpus * 4000, ',4=1,5=', cpus)
from jobs"""


def _submit_sql(workload: Workload) -> str:
    """When a job was submitted, from its number: evenly, except in the crowded days."""
    start, share = workload.start, f"(came / {workload.jobs})"
    crowd, quiet_seconds = workload.crowded, (workload.days - 10) * DAY
    if not crowd:
        return f"{start} + floor({share} * {workload.days * DAY})"
    return (
        f"{start} + floor(if({share} < {1 - crowd}, {share} / {1 - crowd} * {quiet_seconds},"
        f" {quiet_seconds} + ({share} - {1 - crowd}) / {crowd} * {10 * DAY}))"
    )


def _insert_requeued_runs(table: str) -> str:
    """One job in a hundred has another row, of a run that was requeued after an hour: its End is the later Submit."""
    columns = (
        "mod_time, account, cpus_req, job_name, id_assoc, id_array_job, id_array_task, id_job, id_qos, id_resv,"
        " id_wckey, id_user, id_group, het_job_id, het_job_offset, state_reason_prev, nodelist, nodes_alloc, node_inx,"
        " `partition`, priority, timelimit, work_dir, submit_line, tres_alloc, tres_req"
    )
    return (
        f"insert into {table} ({columns}, state, time_submit, time_eligible, time_start, time_end)"
        f" select {columns}, 1024, time_submit - 7200, time_submit - 7200, time_submit - 3600, time_submit"
        f" from {table} where tres_alloc != '' and id_job % 100 = 50"
    )


def _insert_steps(cluster: str, step: int, first: int, last: int) -> str:
    """The batch script, followed by one srun after the other."""
    step_id, name = (-5, "batch") if step == 0 else (step - 1, "python")
    usage = "1=3600,2=1048576,3=0,6=52428800,7=2097152,8=120"
    return f"""
set session unique_checks = 0;
insert into {cluster}_step_table (job_db_inx, id_step, nodelist, nodes_alloc, node_inx, state, step_name, task_cnt,
  time_start, time_end, user_sec, sys_sec, tres_alloc, tres_usage_in_ave, tres_usage_in_max, tres_usage_in_tot)
select job_db_inx, {step_id}, nodelist, nodes_alloc, '0', if(time_end, 3, 1), '{name}', 1, time_start, time_end, 100,
  10, tres_alloc, '{usage}', '{usage}', '{usage}'
from {cluster}_job_table where id_job between {first} and {last} and time_start > 0"""
