"""Output on a terminal: pages, colours, and a bar that grows.

A program that reads our output gets none of them.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress

Paint = Callable[[str, str], str]

_CODES = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "bold": 1}
_BAR = 30  # columns
CLEAR_LINE = "\r\x1b[K"  # back to the start of a line, of which nothing is left


def plain(text: str, colour: str) -> str:
    """A `Paint` that leaves text as it is."""
    return text


def painter() -> Paint:
    """The way to colour words on standard output.

    There are none where it is no terminal, nor where NO_COLOR is set to anything (no-color.org).
    """
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return _coloured if wanted and os.environ.get("TERM") != "dumb" else plain


def _coloured(text: str, colour: str) -> str:
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


@contextmanager
def pages() -> Iterator[None]:
    """Show what is printed meanwhile with $PAGER, on a terminal."""
    pager = os.environ.get("PAGER", "less")
    if not (pager and sys.stdout.isatty()):
        yield
        return
    try:
        process = subprocess.Popen(  # noqa: S603 (what the user asks for)
            shlex.split(pager),
            stdin=subprocess.PIPE,
            env={"LESS": "FRX"} | os.environ,
            text=True,
        )
    except OSError:
        yield
        return
    assert process.stdin is not None
    try:
        with suppress(BrokenPipeError), redirect_stdout(process.stdin):
            yield  # until the reader has seen enough
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()


class Bar:
    """The progress of some work, shown on a terminal alone."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._shown = total > 0 and sys.stderr.isatty()

    def advance(self, count: int) -> None:
        """Let the bar grow: so many more are done."""
        self._done += count
        if self._shown:
            full = _BAR * min(self._done, self._total) // self._total
            bar = "#" * full + "-" * (_BAR - full)
            line = f"\r[{bar}] {self._done} of {self._total}"
            print(line, end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the line to what is printed next."""
        if self._shown:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
