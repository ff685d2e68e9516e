"""Which hosts control a cluster, and whether this is one of them."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from agent.slurm.controller_hosts import Controllers, is_this_host, parse_controllers


def test_a_pair_as_scontrol_shows_it() -> None:
    """The hosts come in the order in which they take control."""
    settings = {
        "SlurmctldHost[1]": "ctl2(10.77.0.2)",
        "ClusterName": "ha",
        "SlurmctldHost[0]": "ctl1(10.77.0.1)",
        "StateSaveLocation": "/shared/state",
        "SlurmctldPort": "6817",
    }
    assert Controllers("ha", ("ctl1(10.77.0.1)", "ctl2(10.77.0.2)"), "/shared/state") == parse_controllers(settings)


def test_a_slurmctld_that_names_nothing() -> None:
    """A missing value is empty, never guessed."""
    assert Controllers("", (), "") == parse_controllers({"ClusterName": "(null)"})


def test_this_host_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its domain or without, in whatever case."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="ctl1.example.com"))
    assert is_this_host("CTL1(192.0.2.77)")
    assert not is_this_host("ctl2(192.0.2.78)")


def test_a_loopback_address_proves_nothing() -> None:
    """Any host may resolve its own name to a loopback address, so the address does not identify this one."""
    assert not is_this_host("another(127.0.0.1)")
    assert not is_this_host("another(127.0.1.1)")


def test_a_name_that_does_not_resolve() -> None:
    """Such a name is another host's."""
    assert not is_this_host("no-such-host.invalid")
