"""The processes of the nodes that share a spool."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """A process of a node.

    `began`: seconds since the epoch.  `leased`: how many messages it works on.
    """

    node: str
    version: str
    began: float
    is_alive: bool
    leased: int
