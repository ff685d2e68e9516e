"""The container examples match the code."""

from __future__ import annotations

import re

from agent.arguments import parse_argv
from agent.options import RunOptions
from tests.install.installation import CHECKOUT, NAME

MANIFEST = (CHECKOUT / "etc/container/kubernetes.yaml").read_text()
RECIPE = (CHECKOUT / "etc/container/Containerfile").read_text()


def test_the_manifest_and_the_containerfile_name_existing_commands() -> None:
    """The examples run the same command, with existing options."""
    (arguments,) = re.findall(r'args: (\[.*"run".*\])', MANIFEST)
    (command,) = re.findall(r"^CMD (\[.*\])$", RECIPE, re.MULTILINE)
    assert arguments == command
    _, options = parse_argv(re.findall(r'"([^"]+)"', command))
    assert isinstance(options, RunOptions)


def test_the_probe_looks_at_the_file_that_is_written() -> None:
    """The probe reads the health file that `run` writes, and no other."""
    (written,) = set(re.findall(r'"--health-file", "([^"]+)"', MANIFEST))
    assert f"find {written} -mmin" in MANIFEST


def test_both_containers_see_one_spool() -> None:
    """The shared volume is where the hook writes and the exporter reads."""
    assert 2 == MANIFEST.count(f"mountPath: /var/spool/{NAME}\n")
