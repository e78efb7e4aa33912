"""Checks of the server as a service: its state, version and unit."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib import resources
from pathlib import Path

from mta import __version__
from mta.doctor.examined import Examined
from mta.doctor.machine import output_of
from mta.doctor.result import Result, bad, ok, unknown, warn
from mta.installation.sockets import NAME, UNITS
from mta.maildrop import published
from mta.spool import inspection

MAX_SHOWN = 3  # lines of a unit that are named in one line of ours

_GAP = re.compile(r"@[A-Z_]+@")


async def running(examined: Examined) -> AsyncIterator[Result]:
    """Look whether the server runs, and will after a restart."""
    for result in await examined.in_thread(_running, Path(examined.settings.spool)):
        yield result


def _running(spool: Path) -> Sequence[Result]:
    """Ask systemd, and look at the spool.  Blocks."""
    is_in_use = inspection.is_in_use(spool)
    active = output_of("systemctl", "is-active", NAME)
    found = [ok("the server is running")]
    if active == "active" or is_in_use:
        found += _version(spool) if is_in_use else ()
    elif active:
        remedy = f"systemctl start {NAME}; journalctl -u {NAME} says why"
        found = [bad(f"{NAME} is {active}", remedy)]
    else:
        found = [bad("the server is not running", "start it: twistd mta --config FILE")]
    if active == "active" and output_of("systemctl", "is-enabled", NAME) != "enabled":
        text = f"{NAME} does not start with the machine"
        found.append(warn(text, f"systemctl enable {NAME}"))
    return found


def _version(spool: Path) -> Iterator[Result]:
    """Compare the version of the server that runs with ours."""
    version = published.version(spool)
    if version == __version__:
        yield ok(f"it has version {version}, as is installed")
    elif version:
        yield warn(
            f"it has version {version}, and {__version__} is installed",
            f"restart it: systemctl restart {NAME}",
        )
    else:
        yield unknown("it does not tell its version: it is an older one")


async def unit(examined: Examined) -> AsyncIterator[Result]:
    """Compare the unit of systemd with the one of this version."""
    for result in await examined.in_thread(_unit, UNITS):
        yield result


def _unit(units: Sequence[Path]) -> Sequence[Result]:
    """Look at the first of these units that there is.  Blocks."""
    path = next((each for each in units if each.exists()), None)
    if path is None:
        return []
    missing = missing_lines(path.read_text("utf-8", "replace"))
    if not missing:
        return [ok(f"{path} is as this version has it")]
    named = ", ".join(missing[:MAX_SHOWN]) + (", ..." if len(missing) > MAX_SHOWN else "")
    return [
        warn(
            f"{path} lacks {len(missing)} lines of this version's unit: {named}",
            "mta init --replace writes it anew",
        )
    ]


def missing_lines(text: str) -> Sequence[str]:
    """The settings of the shipped unit that another one does not have."""
    shipped = (resources.files("mta.installation") / "templates" / NAME).read_text("utf-8")
    return [line for line in _settings(shipped) if not _form(line).search(text)]


def _settings(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line and line[0] not in "#[")


def _form(line: str) -> re.Pattern[str]:
    """The form of a line whose gaps are filled."""
    pieces = map(re.escape, _GAP.split(line))
    return re.compile(f"^{'.*'.join(pieces)}$", re.MULTILINE)
