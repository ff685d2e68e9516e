"""Which hosts are the controllers of a cluster, and whether this host is one of them."""

from __future__ import annotations

import os
from typing import Callable, Mapping, NamedTuple


class Controllers(NamedTuple):
    """The controllers, as slurm.conf names them."""

    cluster: str  # ClusterName
    hosts: tuple[str, ...]  # SlurmctldHost verbatim, the primary first: ctl1, or ctl1(10.0.0.1)
    state_folder: str  # StateSaveLocation, which all of them share

    @property
    def common_folder(self) -> str:
        """Where the exporters on the controllers take turns and exchange notices."""
        return f"{self.state_folder}/slurm-usage-history-exporter"


def parse_controllers(settings: Mapping[str, str]) -> Controllers:
    """Extracts the controllers from the settings of ``scontrol show config``.

    >>> parse_controllers({"ClusterName": "lab", "SlurmctldHost[0]": "ctl1(10.0.0.1)", "StateSaveLocation": "/state"})
    Controllers(cluster='lab', hosts=('ctl1(10.0.0.1)',), state_folder='/state')
    """
    hosts = [value for name, value in sorted(settings.items()) if name.partition("[")[0] == "SlurmctldHost"]
    cluster = settings.get("ClusterName", "")
    return Controllers("" if cluster == "(null)" else cluster, tuple(hosts), settings.get("StateSaveLocation", ""))


def is_this_host(host: str) -> bool:
    """Whether an item of :attr:`Controllers.hosts` is this host, by name or by address."""
    name, _, address = host.rstrip(")").partition("(")
    return _short(name) == _short(os.uname().nodename) or _is_own(address or name)


def controls(found: Controllers, cluster: str, is_here: Callable[[str], bool] = is_this_host) -> bool:
    """Whether this host is a controller of a cluster. Slurm compares the names of clusters in lower case.

    :param found: the controllers according to slurmctld, or to slurm.conf on this host.
    """
    return found.cluster.lower() == cluster.lower() and (not found.hosts or any(map(is_here, found.hosts)))


def _short(name: str) -> str:
    return name.partition(".")[0].lower()


def _is_own(address: str) -> bool:
    """Whether a socket can be bound to the address. A loopback address is excluded, since every host has one."""
    import ipaddress  # noqa: PLC0415  # loaded only if a site needs it
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
