"""All that is measured: each row runs one load on both servers in turn, several times."""

from __future__ import annotations

from collections.abc import Callable

from bench.figures import Row
from bench.rows import postgresql
from bench.rows.attacks import KINDS
from bench.rows.authentication import Authentication
from bench.rows.delivery import Deliveries, Large
from bench.rows.filters import Filters
from bench.rows.hostile import Hostile
from bench.rows.links import HeldLinks
from bench.rows.passing import Passing
from bench.rows.python import Ceiling, PythonPeers
from bench.rows.questions import Questions
from bench.rows.relay import Distance, Relay
from bench.rows.scale import Idle, Waiting
from bench.rows.sealing import Sealing
from bench.rows.signing import Signing


def rows(wanted: Callable[[str], bool]) -> list[Row]:
    """All rows that are wanted by their names."""
    others: list[Row] = [
        Large(),
        Authentication(),
        Relay(),
        Signing(),
        Filters(),
        Sealing(),
        Distance(),
        Passing(),
        Questions(),
        PythonPeers(),
        Ceiling(),
        Idle(),
        HeldLinks(),
        *map(Hostile, KINDS),
        Waiting(),
        postgresql.Intake(),
        postgresql.Waiting(),
        postgresql.Nodes(),
        postgresql.LongTransaction(),
    ]
    return [Deliveries(wanted), *(row for row in others if wanted(row.name))]
