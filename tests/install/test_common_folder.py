"""The folder by which several controllers take turns, made on a file server that gives root no rights."""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.install.installation import CHECKOUT, NAME
from tests.packaging.root import Root

STATE = "/srv/state"
PAIR = "SlurmctldHost[0]        = ctl1(10.0.0.1)\nSlurmctldHost[1]        = ctl2"
SINGLE = "SlurmctldHost[0]        = ctl1"
#: root without its power over the files of others.
SQUASHED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")


@pytest.fixture
def root() -> Iterator[Root]:
    with Root() as folder:
        functions = (CHECKOUT / "install.sh").read_text().rpartition('main "$@"')[0]
        (folder.path / "root/functions.sh").write_text(functions)
        folder.run("install", "-d", "-o", "slurm", "-m", "700", STATE)
        yield folder


def make_common_folder(root: Root, slurm_config: str) -> str:
    """Calls that part of install.sh, and returns what it said."""
    settings = f"root='' for_user=no dry_run=no user=slurm state={STATE}"
    script = f". /root/functions.sh; {settings}; slurm_config=$SAID; make_common_folder"
    return root.run(*SQUASHED, "sh", "-c", script, SAID=slurm_config)


def test_the_slurm_user_creates_it(root: Root) -> None:
    """root could not create it; an existing one stays unchanged."""
    root.run(*SQUASHED, "mkdir", f"{STATE}/by-root", expect=1)
    for _ in range(2):
        assert "" == make_common_folder(root, PAIR)
        assert "700 slurm" == root.run("stat", "-c", "%a %U", f"{STATE}/{NAME}").strip()


def test_a_single_controller_needs_none(root: Root) -> None:
    """Nothing is written beside slurmctld's state."""
    assert "" == make_common_folder(root, SINGLE)
    assert "" == root.run("ls", "-A", STATE)


def test_it_reports_what_it_cannot_do(root: Root) -> None:
    """The installation continues: jobs are still delivered without turns."""
    root.run("chown", "root", STATE)
    assert f"slurm cannot create {STATE}/{NAME}: see docs/controllers.md\n" == make_common_folder(root, PAIR)
