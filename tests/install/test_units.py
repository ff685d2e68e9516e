"""Tests of the units with systemd's own checks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.install.installation import CHECKOUT, NAME
from tests.support.tools import need

UNITS = sorted((CHECKOUT / "etc" / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
#: The highest exposure level that systemd-analyze may find, in tenths.
WORST_EXPOSURE = 20


@pytest.fixture
def runnable(tmp_path: Path) -> list[Path]:
    """The units with a program that exists on every machine."""
    for unit in UNITS:
        text = unit.read_text().replace(f"/opt/{NAME}/venv/bin/{NAME}", "/bin/true").replace("User=slurm", "User=root")
        (tmp_path / unit.name).write_text(text)
    return sorted(tmp_path.iterdir())


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    need("systemd-analyze")
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_systemd_understands_every_line(runnable: list[Path]) -> None:
    """No unknown setting, no value out of range, no missing unit. Settings newer than Debian 12 are ignored."""
    verdict = analyze("verify", "--man=no", *runnable)
    newer = "Unknown key 'PrivatePIDs' in section [Service], ignoring."
    said = [line for line in verdict.stdout.splitlines() if not line.endswith(newer)]
    assert ([], 0) == (said, verdict.returncode)


def test_a_misspelt_line_would_be_found(runnable: list[Path]) -> None:
    """Otherwise the previous test would prove nothing."""
    for unit in runnable:
        unit.write_text(unit.read_text().replace("PathExists=", "PathExist=").replace("OnCalendar=", "OnCalender="))
    verdict = analyze("verify", "--man=no", *runnable)
    assert {"PathExist", "OnCalender"} <= set(re.findall(r"'(\w+)'", verdict.stdout))


@pytest.mark.parametrize("service", SERVICES, ids=lambda unit: str(unit.stem))
def test_the_sandbox_is_tight(service: Path) -> None:
    """2.0 or better on `systemd-analyze security`."""
    if int(re.findall(r"\d+", analyze("--version").stdout)[0]) < 250:
        pytest.skip("systemd-analyze can't judge a file")
    verdict = analyze("security", "--offline=yes", f"--threshold={WORST_EXPOSURE}", service)
    assert verdict.returncode == 0, verdict.stdout.splitlines()[-1]


def sandbox_of(service: Path) -> str:
    return service.read_text().partition("\n# Sandbox")[2]


def test_both_services_have_the_same_sandbox() -> None:
    """The sandbox is in two files, because older systemds have no other way."""
    first, second = (sandbox_of(unit) for unit in SERVICES if "@" not in unit.name)
    assert first
    assert first == second


def test_the_template_units_are_the_plain_ones_with_an_instance(tmp_path: Path) -> None:
    """`make manual` was not forgotten, and no template is left of a removed unit."""
    subprocess.run([sys.executable, CHECKOUT / "etc/templates.py", tmp_path], check=True)
    made = {unit.name: unit.read_text() for unit in tmp_path.iterdir()}
    assert made == {unit.name: unit.read_text() for unit in UNITS if "@" in unit.name}


def test_an_instance_shares_nothing_with_the_plain_units() -> None:
    """Each name and each folder that a template mentions is the instance's.

    The program alone is the same, and the folder in which controllers take turns.
    """
    for unit in UNITS:
        if "@" in unit.name:
            settings = [line for line in unit.read_text().splitlines() if line and not line.startswith("#")]
            mine = [
                line for line in settings if NAME in line and "Documentation=" not in line and "/slurmctld/" not in line
            ]
            assert [] == [line for line in mine if "%i" not in line]


def settings_of(unit: str) -> list[str]:
    text = (CHECKOUT / "etc" / "systemd" / f"{NAME}{unit}").read_text()
    return [line for line in text.splitlines() if "=" in line and not line.startswith("#")]


def test_a_missed_daily_run_is_repeated_and_spread() -> None:
    """It runs at 02:00 with a random delay, and catches up after the machine was off."""
    assert {"OnCalendar=*-*-* 02:00:00", "RandomizedDelaySec=30min", "Persistent=true"} <= set(settings_of(".timer"))


def test_everything_has_a_time_limit() -> None:
    """Both services are oneshots with a time limit."""
    for service in (".service", "-flush.service"):
        assert {"Type=oneshot"} <= set(settings_of(service))
        assert any(line.startswith("TimeoutStartSec=") for line in settings_of(service))
