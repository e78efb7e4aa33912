"""Run the whole suite as ``make test`` does: ``PYTHONPATH=. python -m tests``.

Trial runs it in two processes while coverage watches `mta.smtp`.  The last line counts the
tests by trial's own summary; the exit status is not 0 unless every test passed and every
branch of `mta.smtp` was taken.  For a part of it: ``python -m twisted.trial tests.smtp``.
"""

import re
import subprocess
import sys
from collections.abc import Sequence

_SUMMARY = re.compile(r"(?:PASSED|FAILED)(?: \((?P<counts>[^)]*)\))?")


def _run(*command: str) -> int:
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode


def _trial(arguments: Sequence[str]) -> tuple[int, str]:
    """Run trial; returns its exit status and the last line of what it said."""
    command = [sys.executable, "-m", "coverage", "run", "-m", "twisted.trial", *arguments]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as trial:
        assert trial.stdout is not None
        for line in trial.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    return trial.returncode, last


def closing_line(summary: str) -> str:
    """``N passed, N failed, N skipped`` from trial's summary line.

    Raises ValueError where the line is no summary: trial itself was cut short.
    """
    match = _SUMMARY.fullmatch(summary)
    if not match:
        raise ValueError(f"no summary from trial: {summary!r}")
    counts = {name: int(n) for name, n in re.findall(r"(\w+)=(\d+)", match["counts"] or "")}
    passed = sum(counts.get(name, 0) for name in ("successes", "expectedFailures"))
    failed = sum(counts.get(name, 0) for name in ("failures", "errors", "unexpectedSuccesses"))
    return f"{passed} passed, {failed} failed, {counts.get('skips', 0)} skipped"


def main() -> int:
    """Run everything; returns the exit status."""
    _run("coverage", "erase")
    status, summary = _trial(["-j2", "tests"])
    _run("coverage", "combine", "--quiet")
    uncovered = _run("coverage", "report")
    if uncovered:
        print("mta.smtp is not covered to the last branch: see the table above", flush=True)
    try:
        print(closing_line(summary), flush=True)
    except ValueError as error:
        print(error, file=sys.stderr)
        return status or 1
    return status or uncovered


if __name__ == "__main__":
    sys.exit(main())
