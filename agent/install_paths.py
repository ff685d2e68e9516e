"""Where the installed scripts are: the hook, the wrapper that calls two hooks, and adapt.

A package, install.sh and a checkout have different places for them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from agent.config import NAME, SYSTEM_FOLDER

ENVIRONMENT = Path(sys.prefix)
PACKAGE = Path(__file__).parent


def find_hook(instance: str = "", *, environment: Path = ENVIRONMENT, package: Path = PACKAGE) -> str:
    """The hook; an instance's is the script that adapt has made for it."""
    if instance:
        return str(SYSTEM_FOLDER / instance / "jobcomp.sh")
    packaged = [Path("/usr/libexec") / NAME / "jobcomp.sh"] if _is_packaged(package) else []
    places = (*packaged, environment.parent / "bin" / "jobcomp.sh", package.parent / "hooks" / "jobcomp.sh")
    return _first(*places) or "/path/to/jobcomp.sh"


def find_wrapper(*, environment: Path = ENVIRONMENT, package: Path = PACKAGE) -> str:
    """The template of a script that calls both the site's own hook and this one."""
    checkout = package.parent / "etc" / "hooks" / "call-both.sh"
    return _first(environment.parent / "call-both.sh", package.parent / "call-both.sh") or str(checkout)


def find_adapt(*, environment: Path = ENVIRONMENT, package: Path = PACKAGE) -> str:
    """The script that creates an instance."""
    if _is_packaged(package):
        return f"/usr/libexec/{NAME}/adapt"
    return _first(environment.parent / "bin" / "adapt") or str(package.parent / "etc" / "packaging" / "adapt.sh")


def _is_packaged(package: Path) -> bool:
    return package.parent == Path("/usr/share") / NAME


def _first(*places: Path) -> str:
    return next((str(place) for place in places if not is_missing(place)), "")


def is_missing(path: Path) -> bool:
    """Whether a path certainly does not exist; False if this user may not look."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
