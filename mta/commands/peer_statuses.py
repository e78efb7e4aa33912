"""The status of peers on all nodes, for commands and checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mta.peers.node_states import NodeStates, PeerStatuses
from mta.peers.status_files import PeerStatusFiles
from mta.settings import Settings
from mta.spool.nodes import NodeProcess
from mta.spool.place import SpoolPlace


def peer_statuses(settings: Settings) -> PeerStatuses:
    """The status of peers, wherever they dialled.  Blocks.  Raises OSError."""
    place = SpoolPlace.of(settings)
    if not place.database or not place.exists():
        return PeerStatuses(place.node, PeerStatusFiles(Path(settings.spool)))
    return on_nodes(settings, place.nodes())


def on_nodes(settings: Settings, processes: Sequence[NodeProcess]) -> PeerStatuses:
    """The status of peers on nodes that have these processes.  As `peer_statuses`."""
    place, files = SpoolPlace.of(settings), PeerStatusFiles(Path(settings.spool))
    store = place.shared_tables()
    try:
        others = NodeStates(store, place.node_name).others()
    finally:
        store.close()
    alive = {process.node for process in processes if process.is_alive}
    return PeerStatuses(place.node_name, files, others, alive)
