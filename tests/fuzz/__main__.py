"""Fuzzes everything that parses foreign input: `make fuzz`, with MINUTES for all of it.

    python -m tests.fuzz MINUTES           each target for its share
    python -m tests.fuzz --target NAME SECONDS

An input that breaks a target is saved as crash-… and shown. Needs atheris, which PyPI has for some versions of Python.
"""

from __future__ import annotations

import subprocess
import sys


def main() -> int:
    """Runs one target in this process, or each target in a separate process."""
    if sys.argv[1:2] == ["--target"]:
        fuzz(sys.argv[2], int(sys.argv[3]))
        return 0
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415  # in the other case it is not loaded before the fuzzer

    seconds = max(int(float(sys.argv[1]) * 60 / len(TARGETS)), 1)
    failed = []
    for name in TARGETS:
        print(f"{name}: {seconds} s", flush=True)
        argv = [sys.executable, "-m", "tests.fuzz", "--target", name, str(seconds)]
        if subprocess.run(argv, check=False).returncode:
            failed.append(name)
    print("failed:", *failed) if failed else print("nothing broke")
    return 1 if failed else 0


def fuzz(name: str, seconds: int) -> None:
    """Feeds one target for some seconds; libFuzzer ends the process."""
    import atheris  # noqa: PLC0415  # not there for every Python

    with atheris.instrument_imports(include=["agent", "tests.fuzz"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415

    options = [f"-max_total_time={seconds}", "-verbosity=0", "-max_len=4096", "-timeout=10", "-rss_limit_mb=1024"]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
