"""Fuzz the readers of the program: ``python -m tests.fuzz [MINUTES [TARGET]]``.

With atheris (``pip install atheris``) it is guided by coverage, a process for each target; without,
Hypothesis changes the seeds.  Exit status 1: a fault was found, and what led to it is printed.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MAX_OCTETS = 2000
MAX_SHOWN = 60  # lines of what a fault said
_COUNTS = (r"number_of_executed_units: (\d+)", r" cov: (\d+)")


def _guided(name: str, seconds: int) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["mta"]):
        from tests.fuzz import targets
    target = next(each for each in targets.TARGETS if each.name == name)
    with tempfile.TemporaryDirectory() as folder:
        for number, octets in enumerate(targets.seeds(target)):
            Path(folder, str(number)).write_bytes(octets)
        options = [f"-max_total_time={seconds}", f"-max_len={MAX_OCTETS}", "-timeout=10"]
        prefix = f"-artifact_prefix={tempfile.gettempdir()}/mta-fuzz-{name}-"
        statistics = "-print_final_stats=1"
        atheris.Setup([sys.argv[0], folder, *options, prefix, statistics], target)
        atheris.Fuzz()


def _run_guided(name: str, seconds: int) -> bool:
    """Fuzz one target in another process; returns whether no fault was found."""
    command = [sys.executable, "-m", "tests.fuzz", "one", name, str(seconds)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    said = ended.stdout + ended.stderr
    if ended.returncode:
        lines = [line for line in said.splitlines() if not line.startswith(("#", "INFO:"))]
        print("\n".join(lines[-MAX_SHOWN:]), flush=True)
    counts = [re.findall(pattern, said) for pattern in _COUNTS]
    runs, branches = (found[-1] if found else "?" for found in counts)
    print(f"{name}: {runs} executions, {branches} branches", flush=True)
    return ended.returncode == 0


def run_unguided(target: Callable[[bytes], None], begun: list[bytes], seconds: float) -> None:
    """Fuzz one target with Hypothesis."""
    end = time.monotonic() + seconds
    pieces = st.lists(st.one_of(st.sampled_from(begun), st.binary(max_size=20)), max_size=6)

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(pieces, st.integers(0, 200), st.binary(max_size=4))
    def check(parts: list[bytes], place: int, change: bytes) -> None:
        octets = b"".join(parts)
        target(octets[:place] + change + octets[place + len(change) :])

    while True:
        check()
        if time.monotonic() >= end:
            return


def main(minutes: float = 10, only: str = "") -> int:
    """Fuzz all targets, or one; returns the exit status."""
    from tests.fuzz.targets import TARGETS, seeds

    chosen = [target for target in TARGETS if only in ("", target.name)]
    seconds = max(1, int(60 * minutes / len(chosen)))
    has_atheris = importlib.util.find_spec("atheris") is not None
    status = 0
    for target in chosen:
        print(f"{target.name}: {seconds} s, {'guided' * has_atheris or 'Hypothesis'}", flush=True)
        if has_atheris:
            status |= not _run_guided(target.name, seconds)
        else:
            run_unguided(target, seeds(target), seconds)
    return int(status)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["one", name, seconds]:
            _guided(name, int(seconds))
        case [minutes, *only]:
            sys.exit(main(float(minutes), *only))
        case _:
            sys.exit(main())
