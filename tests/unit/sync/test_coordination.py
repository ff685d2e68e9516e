"""This host among the controllers of its cluster."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Callable

import pytest

from agent.errors import ConfigError, SlurmUnreachable
from agent.jobs.queue_entry import QueueEntry
from agent.localtime import Range
from agent.slurm.controller_hosts import Controllers
from agent.spool.facts import ELSEWHERE, OTHERS_RECONCILED, WITHOUT_TURNS
from agent.spool.ledger import Ledger
from agent.spool.spool import look_at_ledger
from agent.sync.coordination import REMEMBERED_SECONDS, Coordination, TakingTurns
from tests.support.memory import MemoryDashboard, slurm_of
from tests.support.rows import NOON, make_run
from tests.support.sites import SessionSite

PAIR = ("ctl1(10.77.0.1)", "ctl2(10.77.0.2)")


class Site:
    """A slurmctld that is asked, and a clock."""

    def __init__(self, ledger: Ledger, state: Path, hosts: tuple[str, ...] = PAIR) -> None:
        self.known: Controllers | None = Controllers("ha", hosts, str(state))
        self.asked = 0
        self.now = float(NOON)
        self.ledger = ledger
        self.conf = state / "slurm.conf"

    def controllers(self) -> Controllers:
        self.asked += 1
        if self.known is None:
            raise SlurmUnreachable("scontrol show config failed", hint="see that slurmctld runs")
        return self.known

    def coordination(self, host: str = "ctl1", cluster: str | None = None, instance: str = "") -> Coordination:
        """The coordination of a run on a host, with ``slurm_cluster`` in its configuration or without."""
        is_here: Callable[[str], bool] = lambda name: name.partition("(")[0] == host  # noqa: E731
        slurm = slurm_of(self)
        facts = self.ledger.facts
        return Coordination(
            slurm,
            facts,
            cluster=cluster,
            instance=instance,
            clock=lambda: self.now,
            is_here=is_here,
            host=host,
            environ={"SLURM_CONF": str(self.conf)},
        )


def test_the_name_is_remembered(ledger: Ledger, tmp_path: Path) -> None:
    """Once slurmctld has reported the name, no later run has to ask for it, however long slurmctld is down."""
    site = Site(ledger, tmp_path)
    assert "ha" == site.coordination().cluster_name()
    site.known = None
    site.now += 30 * 86_400
    assert "ha" == site.coordination().cluster_name()


def test_a_run_asks_a_slurmctld_that_does_not_answer_only_once(ledger: Ledger, tmp_path: Path) -> None:
    """Each attempt waits for scontrol's own time limit."""
    site = Site(ledger, tmp_path)
    site.coordination().cluster_name()
    site.known = None
    site.now += 30 * 86_400
    site.asked = 0
    run = site.coordination()
    assert ("ha", True) == (run.cluster_name(), run.several)
    assert 1 == site.asked


def test_slurmctld_is_asked_once_in_a_while(ledger: Ledger, tmp_path: Path) -> None:
    """A flush a minute later asks nothing; an hour later a new name, or a new backup, is noticed."""
    site = Site(ledger, tmp_path)
    site.coordination().cluster_name()
    site.now += REMEMBERED_SECONDS - 1
    site.coordination().cluster_name()
    assert 1 == site.asked
    site.now += 1
    site.known = Controllers("renamed", PAIR, str(tmp_path))
    assert "renamed" == site.coordination().cluster_name()


def test_a_backup_that_was_just_added_is_noticed(ledger: Ledger, tmp_path: Path) -> None:
    """slurmctld may be restarted some time after slurm.conf changed: an answer from then is soon asked for again."""
    site = Site(ledger, tmp_path, ("ctl1",))
    site.now = time.time() + 60
    site.conf.write_text("SlurmctldHost=ctl1\nSlurmctldHost=ctl2\n")
    assert site.coordination().turns() is None
    site.known = Controllers("ha", PAIR, str(tmp_path))
    site.now += 50
    assert site.coordination().turns() is None
    site.now += 20
    assert site.coordination().turns() is not None
    assert 2 == site.asked


def test_an_answer_from_before_a_change_of_slurm_conf_is_not_used(ledger: Ledger, tmp_path: Path) -> None:
    """The next flush after the change asks again."""
    site = Site(ledger, tmp_path, ("ctl1",))
    site.now = time.time() - 60
    assert site.coordination().turns() is None
    site.conf.write_text("SlurmctldHost=ctl1\nSlurmctldHost=ctl2\n")
    site.known = Controllers("ha", PAIR, str(tmp_path))
    site.now = time.time() + 1
    assert site.coordination().turns() is not None


def test_slurm_conf_names_the_controllers_until_slurmctld_has_answered(ledger: Ledger, tmp_path: Path) -> None:
    """A controller whose first run falls into a fail-over takes turns, too; the cluster's name stays unknown."""
    site = Site(ledger, tmp_path)
    site.conf.write_text(f"ClusterName=ha\nSlurmctldHost=ctl1\nSlurmctldHost=ctl2\nStateSaveLocation={tmp_path}\n")
    site.known = None
    for _ in range(2):
        assert site.coordination().turns() is not None
    with pytest.raises(SlurmUnreachable):
        site.coordination().cluster_name()


def test_an_unknown_cluster_name_is_not_a_configuration_error(ledger: Ledger, tmp_path: Path) -> None:
    """slurmctld is unreachable, exit 69: the next run may find it."""
    site = Site(ledger, tmp_path)
    site.known = None
    with pytest.raises(SlurmUnreachable) as caught:
        site.coordination().cluster_name()
    assert 69 == caught.value.exit_code
    assert "the cluster's name is unknown: scontrol show config failed" == str(caught.value)
    assert caught.value.hint.startswith("start slurmctld, or set cluster_name in the configuration")


def test_a_cluster_name_is_requested_where_none_was_needed_before(ledger: Ledger, tmp_path: Path) -> None:
    """A run with cluster_name in its configuration has noted that slurmctld did not answer; one without asks."""
    site = Site(ledger, tmp_path)
    given, site.known = site.known, None
    assert site.coordination().turns() is None
    site.known = given
    assert "ha" == site.coordination().cluster_name()


def test_a_slurmctld_that_has_no_name(ledger: Ledger, tmp_path: Path) -> None:
    """It is a configuration error, and slurmctld is not asked again."""
    site = Site(ledger, tmp_path)
    site.known = Controllers("", PAIR, str(tmp_path))
    with pytest.raises(ConfigError, match="the cluster's name is unknown"):
        site.coordination().cluster_name()
    assert 1 == site.asked


def test_after_the_clock_was_set_back_the_job_is_requested_again(ledger: Ledger, tmp_path: Path) -> None:
    """Otherwise nothing would be requested until the clock reaches the old time again."""
    site = Site(ledger, tmp_path)
    site.coordination().cluster_name()
    site.now -= 86_400
    site.coordination().cluster_name()
    assert 2 == site.asked


def test_with_a_configured_name_an_unreachable_slurmctld_is_asked_rarely(ledger: Ledger, tmp_path: Path) -> None:
    """Each attempt waits for scontrol's own time limit."""
    site = Site(ledger, tmp_path)
    site.known = None
    for _ in range(3):
        assert site.coordination().turns() is None
    assert 1 == site.asked


@pytest.mark.parametrize(
    ("hosts", "host", "answers"),
    [
        (PAIR, "ctl1", (True, False)),
        (PAIR, "ctl2", (True, False)),
        (PAIR, "login", (False, True)),  # the login host's own folder, even with the same path
        (("ctl1",), "ctl1", (False, False)),
        (("ctl1",), "login", (False, True)),
        ((), "ctl1", (False, False)),
    ],
)
def test_who_takes_turns(
    ledger: Ledger, tmp_path: Path, hosts: tuple[str, ...], host: str, answers: tuple[bool, bool]
) -> None:
    """Several controllers do. Another host may meet them; the only controller meets nobody."""
    control = Site(ledger, tmp_path, hosts).coordination(host)
    assert answers == (control.turns() is not None, control.may_meet_others)


def test_without_the_shared_folder_two_hosts_may_collide(ledger: Ledger, tmp_path: Path) -> None:
    """Only a run that did not get a turn resends."""
    control = Site(ledger, tmp_path / "missing").coordination()
    turns = control.turns()
    assert turns
    assert not control.may_meet_others
    TakingTurns(MemoryDashboard(), turns).submit("ha", ["{}"])
    assert control.may_meet_others


def test_runs_without_a_turn_are_recorded_until_one_gets_it(ledger: Ledger, tmp_path: Path) -> None:
    """status warns from the first run that had to send without its turn; a run with nothing to send changes nothing."""
    site = Site(ledger, tmp_path / "missing")

    def run(*, sends: bool = True) -> float:
        site.now += REMEMBERED_SECONDS
        control = site.coordination()
        turns = control.turns() if sends else None
        if turns:
            TakingTurns(MemoryDashboard(), turns).submit("ha", ["{}"])
        control.end_turns()
        return ledger.facts.get(WITHOUT_TURNS) - NOON

    assert [3600, 3600, 3600] == [run(), run(sends=False), run()]
    (tmp_path / "missing").mkdir()
    assert -NOON == run()


def test_a_flush_without_its_turn_shows_in_status(tmp_path: Path) -> None:
    """The warning lasts until a run gets its turn."""
    site = SessionSite(tmp_path / "spool", make_run(), now=NOON + 600.0)
    (tmp_path / "spool").mkdir(mode=0o750)
    state = tmp_path / "state"
    site.slurm.controllers = lambda: Controllers("lab", (os.uname().nodename, "other"), str(state))

    def flush() -> float:
        site.flush(QueueEntry(make_run().raw_id))
        with look_at_ledger(tmp_path / "spool") as ledger:
            return ledger.facts.get(WITHOUT_TURNS)

    assert NOON + 600 == flush()
    state.mkdir()
    site.slurm.runs = [make_run(End=str(NOON + 60))]
    assert not flush()


def test_a_cluster_that_lost_its_second_controller_takes_no_turns(ledger: Ledger, tmp_path: Path) -> None:
    """status then stops warning that turns fail."""
    site = Site(ledger, tmp_path, ("ctl1",))
    ledger.facts.set(WITHOUT_TURNS, NOON)
    site.coordination().end_turns()
    assert not ledger.facts.get(WITHOUT_TURNS)


def test_jobs_for_which_another_host_was_called(ledger: Ledger, tmp_path: Path) -> None:
    """Between the first and the last End of each of its flushes, and a little around; nothing else."""
    site = Site(ledger, tmp_path)
    site.coordination("ctl2").publish_calls([Range(1000, 1300)], forget_before=0)
    site.coordination("ctl2").publish_calls([Range(1400, 1400)], forget_before=0)
    site.coordination("ctl1").publish_calls([Range(2000, 2100)], forget_before=0)
    site.coordination("ctl2").publish_calls([], forget_before=0)
    others = site.coordination("ctl1").others_calls()
    asked = [994, 995, 1150, 1305, 1306, 1395, 1405, 1406, 2050]
    assert [False, True, True, True, False, True, True, False, False] == list(map(others, asked))


def test_a_long_time_with_a_short_one_in_it(ledger: Ledger, tmp_path: Path) -> None:
    """After an outage, the range of one flush may span hours."""
    site = Site(ledger, tmp_path)
    for ends in (Range(1000, 9000), Range(2000, 2100)):
        site.coordination("ctl2").publish_calls([ends], forget_before=0)
    assert site.coordination("ctl1").others_calls()(8000)


@pytest.mark.parametrize(("hosts", "host"), [(("ctl1",), "ctl1"), (PAIR, "login"), ((), "ctl1")])
def test_a_single_controller_reads_and_leaves_no_notices(
    ledger: Ledger, tmp_path: Path, hosts: tuple[str, ...], host: str
) -> None:
    """Nothing is written beside slurmctld's state."""
    before = sorted(tmp_path.iterdir())
    control = Site(ledger, tmp_path, hosts).coordination(host)
    control.publish_calls([Range(1000, 1300)], forget_before=0)
    control.publish_reconcile(forget_before=0)
    control.note_others_reconcile()
    assert not control.others_calls()(1100)
    assert before == sorted(tmp_path.iterdir())


def test_the_reconcile_of_another_controller_counts(ledger: Ledger, tmp_path: Path) -> None:
    """A host without a timer for reconcile is not warned that none has succeeded."""
    site = Site(ledger, tmp_path)
    site.coordination("ctl2").publish_reconcile(forget_before=0)
    site.coordination("ctl1").note_others_reconcile()
    assert NOON == ledger.facts.get(OTHERS_RECONCILED)


def test_one_instance_does_not_hear_of_anothers_runs(ledger: Ledger, tmp_path: Path) -> None:
    """A reconcile for the test dashboard has delivered nothing to the other one."""
    site = Site(ledger, tmp_path)
    site.coordination("ctl2", instance="test").publish_reconcile(forget_before=0)
    site.coordination("ctl1").note_others_reconcile()
    assert not ledger.facts.get(OTHERS_RECONCILED)
    site.coordination("ctl1", instance="test").note_others_reconcile()
    assert NOON == ledger.facts.get(OTHERS_RECONCILED)


@pytest.mark.parametrize(
    ("cluster", "host", "elsewhere"),
    [(None, "login", False), ("HA", "ctl1", False), ("ha", "login", True), ("physics", "ctl1", True)],
)
def test_a_cluster_of_other_hosts(
    ledger: Ledger, tmp_path: Path, cluster: str | None, host: str, elsewhere: bool
) -> None:
    """slurm_cluster names one that this host does not control: no turns are taken here, and its own may send, too."""
    control = Site(ledger, tmp_path).coordination(host, cluster)
    assert (elsewhere or host == "login") == control.may_meet_others
    assert elsewhere == ledger.facts.get(ELSEWHERE)
    if elsewhere:
        assert control.turns() is None


def test_a_cluster_of_other_hosts_needs_no_slurmctld(ledger: Ledger, tmp_path: Path) -> None:
    """None answers here, and none has to."""
    site = Site(ledger, tmp_path)
    site.known = None
    control = site.coordination(cluster="physics")
    assert control.turns() is None
    assert ledger.facts.get(ELSEWHERE)
