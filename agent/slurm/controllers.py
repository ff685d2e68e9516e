"""The controllers of a cluster: which hosts they are, and which of them is in control."""

from __future__ import annotations

import os
import re
from typing import Mapping, NamedTuple

_UP = re.compile(r"\((?:primary|backup\d*)\) at (\S+) is UP")


class Controllers(NamedTuple):
    """What slurm.conf says of them."""

    cluster: str  # ClusterName
    hosts: tuple[str, ...]  # SlurmctldHost as they are written, the primary first: ctl1, or ctl1(10.0.0.1)
    state_folder: str  # StateSaveLocation, which all of them share


def parse_controllers(settings: Mapping[str, str]) -> Controllers:
    """Picks out of ``scontrol show config`` what concerns the controllers.

    >>> parse_controllers({"ClusterName": "lab", "SlurmctldHost[0]": "ctl1(10.0.0.1)", "StateSaveLocation": "/state"})
    Controllers(cluster='lab', hosts=('ctl1(10.0.0.1)',), state_folder='/state')
    """
    hosts = [value for name, value in sorted(settings.items()) if name.partition("[")[0] == "SlurmctldHost"]
    cluster = settings.get("ClusterName", "")
    return Controllers("" if cluster == "(null)" else cluster, tuple(hosts), settings.get("StateSaveLocation", ""))


def find_in_control(ping: str) -> str | None:
    """The host in control, by what ``scontrol ping`` says: the first that is up. None where none is.

    A primary that is up takes control from its backup, and one that has lost control by ``scontrol takeover`` is down.
    Seen on 22.05 and 26.05.

    >>> find_in_control("Slurmctld(primary) at ctl1 is DOWN\\nSlurmctld(backup) at ctl2 is UP")
    'ctl2'
    """
    found = _UP.search(ping)
    return found.group(1) if found else None


def is_this_host(host: str) -> bool:
    """Whether one of :attr:`Controllers.hosts` is the host that this runs on, by its name or its address."""
    name, _, address = host.rstrip(")").partition("(")
    return _short(name) == _short(os.uname().nodename) or _is_own(address or name)


def _short(name: str) -> str:
    return name.partition(".")[0].lower()


def _is_own(address: str) -> bool:
    """Only an address of this host's can be bound to. Every host has a loopback address: that one proves nothing."""
    import ipaddress  # noqa: PLC0415  # what few sites need is loaded there alone
    import socket  # noqa: PLC0415

    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    for family, kind, protocol, _, place in found:
        if ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback:
            continue
        try:
            with socket.socket(family, kind, protocol) as attempt:
                attempt.bind(place)
        except OSError:
            continue
        return True
    return False
