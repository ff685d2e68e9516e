"""Whether the dashboard is encrypted, accepts the key, shows the cluster and agrees on the time."""

from __future__ import annotations

import time
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Callable, Mapping
from urllib.parse import urlsplit

from agent.check.finding import NotWell
from agent.config import PLAIN_HTTP_HINT, Config, is_plain_http
from agent.dashboard.answer import Answer, shown_clusters
from agent.dashboard.client import Dashboard
from agent.wording import span

#: The largest difference between the clocks that is acceptable.
CLOCK_SECONDS = 60.0


def check_encryption(config: Config, environ: Mapping[str, str]) -> str:
    """Whether the key is sent encrypted. The certificate was verified by the request before."""
    if urlsplit(config.api_url).scheme == "https":
        store = config.ca_bundle or environ.get("REQUESTS_CA_BUNDLE") or "this host's trust store"
        return f"https, verified with {store}"
    if not is_plain_http(config.api_url):
        return "http, within this host"
    if config.allow_http:
        return "none: allow_http permits plain http"
    raise NotWell(config.plain_http, hint=PLAIN_HTTP_HINT)


def check_clock(answer: Answer, clock: Callable[[], float] = time.time) -> str:
    """Whether this host's clock agrees with the dashboard's."""
    try:
        reported = parsedate_to_datetime(answer.headers["Date"][:100])
        theirs = (reported if reported.tzinfo else reported.replace(tzinfo=timezone.utc)).timestamp()
    except (KeyError, ValueError, TypeError, IndexError, OverflowError, OSError):  # the header may hold anything
        return "unknown: the dashboard does not report its time"
    ahead = clock() - theirs
    if abs(ahead) > CLOCK_SECONDS:
        raise NotWell(
            f"this host is {span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} the dashboard",
            hint="check that both synchronise with NTP: chronyc tracking, or timedatectl",
        )
    return "within a minute of the dashboard's"


def check_key(dashboard: Dashboard, cluster: str) -> tuple[str, str]:
    """The result, and the cluster that the key belongs to, empty if the dashboard does not report it."""
    owner = dashboard.check_key(cluster)
    return f"accepted, belongs to {owner}" if owner else "accepted", owner


def check_shown(cluster: str, owner: str, answer: Answer, delivered: float) -> str:
    """Whether the dashboard displays this cluster's jobs.

    The dashboard stores jobs under any name, but displays only those of the key's cluster. It displays a new cluster
    only after it has been restarted.

    :param cluster: the name that jobs are sent under.
    :param owner: the cluster that the key belongs to, empty if unknown.
    :param answer: the answer to the health check.
    :param delivered: how many jobs have been delivered.
    """
    if owner and owner != cluster:
        raise NotWell(
            f"jobs are sent as {cluster}, but the key belongs to {owner}: they are stored but never displayed",
            hint=f'set cluster_name = "{owner}", or get a key for {cluster}',
        )
    shown = shown_clusters(answer)
    if shown is None:
        return "unknown: the dashboard does not report which clusters it displays"
    if cluster in shown:
        return f"as {cluster}"
    if delivered:
        raise NotWell(
            f"jobs were delivered as {cluster}, which the dashboard does not display",
            hint="ask the dashboard's administrator to restart it: it displays a new cluster only after a restart",
        )
    return f"not yet: {cluster} appears once jobs have been delivered and the dashboard has been restarted"
