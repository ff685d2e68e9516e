"""What the dashboard has to be: there, trusted, glad of our key, and of one mind about the time."""

from __future__ import annotations

import time
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Callable, Mapping
from urllib.parse import urlsplit

from agent.check.finding import NotWell
from agent.config import Config
from agent.dashboard.answer import Answer, shown_clusters
from agent.dashboard.client import Dashboard
from agent.wording import span

#: Further apart, the dashboard's days are not the cluster's.
CLOCK_SECONDS = 60.0


def check_encryption(config: Config, environ: Mapping[str, str]) -> str:
    """Whether nobody on the way can read the key. That the certificate is good has been seen by then."""
    url = urlsplit(config.api_url)
    if url.scheme == "https":
        store = config.ca_bundle or environ.get("REQUESTS_CA_BUNDLE") or "an authority that this host trusts"
        return f"https, certified by {store}"
    if url.hostname in {"localhost", "127.0.0.1", "::1"}:
        return "http, within this host"
    raise NotWell(f"{config.api_url} is not encrypted: the API key can be read on the way", hint="use https")


def check_clock(answer: Answer, clock: Callable[[], float] = time.time) -> str:
    """Whether this host's clock is the dashboard's."""
    try:
        told = parsedate_to_datetime(answer.headers["Date"][:100])
        theirs = (told if told.tzinfo else told.replace(tzinfo=timezone.utc)).timestamp()
    except (KeyError, ValueError, TypeError, IndexError, OverflowError, OSError):  # whatever stands there
        return "the dashboard does not tell its time"
    ahead = clock() - theirs
    if abs(ahead) > CLOCK_SECONDS:
        raise NotWell(
            f"this host is {span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} the dashboard",
            hint="see that both take their time from the network: chronyc tracking, or timedatectl",
        )
    return "the dashboard's, within a minute"


def check_key(dashboard: Dashboard, cluster: str) -> tuple[str, str]:
    """Whether the key is accepted; with the cluster that it belongs to, empty where the dashboard does not tell."""
    owner = dashboard.check_key(cluster)
    return f"accepted, as that of {owner}" if owner else "accepted", owner


def check_shown(cluster: str, owner: str, answer: Answer, delivered: float) -> str:
    """Whether what is sent is shown, too.

    The dashboard stores jobs under whatever name they come, and shows those of the key's cluster; one that is new to it
    is shown after its restart.

    :param cluster: the name that jobs are sent under.
    :param owner: the cluster that the key belongs to, empty where nobody knows.
    :param answer: of the health check.
    :param delivered: how many jobs have been.
    """
    if owner and owner != cluster:
        raise NotWell(
            f"jobs go there as {cluster}, but the key belongs to {owner}: they are stored, and never shown",
            hint=f'set cluster_name = "{owner}", or get a key for {cluster}',
        )
    shown = shown_clusters(answer)
    if shown is None:
        return "the dashboard does not tell which clusters it shows"
    if cluster in shown:
        return f"as {cluster}"
    if delivered:
        raise NotWell(
            f"jobs were delivered as {cluster}, which the dashboard does not show",
            hint="a cluster that is new to a dashboard shows after its restart: ask its administrator for one",
        )
    return f"not yet: {cluster} will be, once jobs were delivered and the dashboard was restarted"
