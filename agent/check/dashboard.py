"""What the dashboard has to be: there, trusted, glad of our key, and of one mind about the time."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Callable, Mapping
from urllib.parse import urlsplit

from agent.check.finding import NotWell
from agent.config import Config
from agent.dashboard.answer import Answer
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
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return "the dashboard does not tell its time"
    ahead = clock() - theirs
    if abs(ahead) > CLOCK_SECONDS:
        raise NotWell(
            f"this host is {span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} the dashboard",
            hint="see that both take their time from the network: chronyc tracking, or timedatectl",
        )
    return "the dashboard's, within a minute"


def check_key(dashboard: Dashboard, cluster: str) -> str:
    """Whether the key is accepted. A POST without jobs stores nothing."""
    dashboard.submit(cluster or "check", [], tries=1)
    return "accepted"
