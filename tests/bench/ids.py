"""How many jobs to ask sacct for in one call, and how far back: the measurements behind flush's choices."""

from __future__ import annotations

from . import bare
from .measure import Figure
from .site import MONTH, YEAR, Site

COUNTS = (1, 100, 190, 210, 1000, 5000, 10_000)
DAY = 86_400


def figures(site: Site, rounds: int) -> list[Figure]:
    """The bare ``sacct -j`` for that number of the latest jobs, looking back a year or a day."""
    result = []
    for cluster in (MONTH, YEAR):
        jobs = site.ended(cluster, max(COUNTS))
        for back, words in ((365 * DAY, "a year"), (DAY, "a day")):
            for count in COUNTS:
                since = min(job.end for job in jobs[:count]) - back
                seconds = [
                    bare.ask_jobs(site, cluster, jobs[:count], since=since).seconds for _ in range(min(rounds, 3))
                ]
                result.append(Figure(f"{cluster}: {count:,} jobs, back {words}", seconds, "s"))
    return result
