"""Fuzz the readers of the program: ``python -m tests.fuzz [MINUTES [TARGET]]``.

With atheris (``pip install atheris``) it is guided by coverage, a process for each target; without,
Hypothesis changes the seeds.  Exit status 1: a fault was found, and what led to it is printed.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MAX_OCTETS = 2000


def _guided(name: str, seconds: int) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["mta"]):
        from tests.fuzz import targets
    target = getattr(targets, name)
    with tempfile.TemporaryDirectory() as folder:
        for number, octets in enumerate(targets.seeds(target)):
            Path(folder, str(number)).write_bytes(octets)
        options = [f"-max_total_time={seconds}", f"-max_len={MAX_OCTETS}", "-timeout=10"]
        prefix = f"-artifact_prefix={tempfile.gettempdir()}/mta-fuzz-{name}-"
        atheris.Setup([sys.argv[0], folder, *options, prefix, "-verbosity=0"], target)
        atheris.Fuzz()


def _unguided(target: Callable[[bytes], None], begun: list[bytes], seconds: float) -> None:
    """Fuzz one target with Hypothesis."""
    end = time.monotonic() + seconds
    pieces = st.lists(st.one_of(st.sampled_from(begun), st.binary(max_size=20)), max_size=6)

    @settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(pieces, st.integers(0, 200), st.binary(max_size=4))
    def check(parts: list[bytes], place: int, change: bytes) -> None:
        octets = b"".join(parts)
        target(octets[:place] + change + octets[place + len(change) :])

    while time.monotonic() < end:
        check()


def main(minutes: float = 10, only: str = "") -> int:
    """Fuzz all targets, or one; returns the exit status."""
    from tests.fuzz.targets import TARGETS, seeds

    chosen = [target for target in TARGETS if only in ("", target.__name__)]
    seconds = max(1, int(60 * minutes / len(chosen)))
    has_atheris = importlib.util.find_spec("atheris") is not None
    status = 0
    for target in chosen:
        print(
            f"{target.__name__}: {seconds} s, {'guided' * has_atheris or 'Hypothesis'}", flush=True
        )
        if has_atheris:
            command = [sys.executable, "-m", "tests.fuzz", "one", target.__name__, str(seconds)]
            status |= subprocess.run(command, check=False, env=os.environ).returncode != 0
        else:
            _unguided(target, seeds(target), seconds)
    return int(status)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["one", name, seconds]:
            _guided(name, int(seconds))
        case [minutes, *only]:
            sys.exit(main(float(minutes), *only))
        case _:
            sys.exit(main())
