"""The controllers of a cluster: which hosts they are, and whether this is one of them."""

from __future__ import annotations

import os
from typing import Callable, Mapping, NamedTuple


class Controllers(NamedTuple):
    """What slurm.conf says of them."""

    cluster: str  # ClusterName
    hosts: tuple[str, ...]  # SlurmctldHost as they are written, the primary first: ctl1, or ctl1(10.0.0.1)
    state_folder: str  # StateSaveLocation, which all of them share

    @property
    def common_folder(self) -> str:
        """Where the exporters on several controllers take turns and leave notices."""
        return f"{self.state_folder}/slurm-usage-history-exporter"


def parse_controllers(settings: Mapping[str, str]) -> Controllers:
    """Picks out of ``scontrol show config`` what concerns the controllers.

    >>> parse_controllers({"ClusterName": "lab", "SlurmctldHost[0]": "ctl1(10.0.0.1)", "StateSaveLocation": "/state"})
    Controllers(cluster='lab', hosts=('ctl1(10.0.0.1)',), state_folder='/state')
    """
    hosts = [value for name, value in sorted(settings.items()) if name.partition("[")[0] == "SlurmctldHost"]
    cluster = settings.get("ClusterName", "")
    return Controllers("" if cluster == "(null)" else cluster, tuple(hosts), settings.get("StateSaveLocation", ""))


def is_this_host(host: str) -> bool:
    """Whether one of :attr:`Controllers.hosts` is the host that this runs on, by its name or its address."""
    name, _, address = host.rstrip(")").partition("(")
    return _short(name) == _short(os.uname().nodename) or _is_own(address or name)


def controls(found: Controllers, cluster: str, is_here: Callable[[str], bool] = is_this_host) -> bool:
    """Whether this host is a controller of a cluster, which Slurm names in lower case, however it is written.

    :param found: the controllers that slurmctld or slurm.conf on this host names.
    """
    return found.cluster.lower() == cluster.lower() and (not found.hosts or any(map(is_here, found.hosts)))


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
