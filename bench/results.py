"""The results as people read them."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.figures import Bench, Figure
from bench.servers import SBIN


def line(figure: Figure) -> str:
    """One figure, for the terminal."""
    return f"{figure.what}: " + ", ".join(filter(None, _cells(figure)[1:]))


def document(figures: Sequence[Figure], bench: Bench) -> str:
    """All figures, as reStructuredText."""
    titles = ("Work", "Unit", "mta", "peer", "", "Ratio", "Bar", "")
    table = [titles, *(_cells(figure) for figure in figures)]
    rows = "\n".join(
        "\n".join(
            f"   {'  ' if place else '* '}- {cell}".rstrip() for place, cell in enumerate(cells)
        )
        for cells in table
    )
    return f"""\
Results
=======

Written by ``make bench`` on {datetime.now(UTC):%Y-%m-%d}; ``docs/performance.rst`` says what the
figures mean.  Medians of {bench.repetitions}, the servers in turn; the ratio is the median of the
ratios of neighbouring runs.  mta with ``workers: {bench.workers}``, but for large messages, the
100 ms round trip, idle connections and waiting messages, which have one process.

- {_machine()}
- {_versions()}

.. list-table::
   :header-rows: 1

{rows}
"""


def _row(cells: Sequence[str]) -> str:
    first, *rest = cells
    return "\n".join(line.rstrip() for line in (f"   * - {first}", *(f"     - {c}" for c in rest)))


def _cells(figure: Figure) -> tuple[str, ...]:
    peers = _number(statistics.median(figure.peers)) if figure.peers else ""
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    bar = ""
    if figure.bar is not None:
        bar = ("≤ " if figure.at_most else "≥ ") + f"{figure.bar:.3g}" + (" x" if peers else "")
    met = {True: "met", False: "**below**", None: ""}[figure.is_met]
    ours = _number(statistics.median(figure.ours))
    return (figure.what, figure.unit, ours, figure.peer if peers else "", peers, ratio, bar, met)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.2f}"


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = [
        text.partition(":")[2].strip()
        for text in Path("/proc/cpuinfo").read_text().splitlines()
        if text.startswith("model name")
    ]
    model = names[0] if names else platform.machine()
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}"


def _versions() -> str:
    known = [
        f"Python {platform.python_version()}",
        f"Twisted {version('twisted')}",
        f"SQLite {sqlite3.sqlite_version}",
    ]
    if postconf := shutil.which("postconf", path=SBIN):
        said = subprocess.run([postconf, "-dh", "mail_version"], capture_output=True, check=False)
        known.append(f"Postfix {said.stdout.decode().strip()}")
    return ", ".join(known)
