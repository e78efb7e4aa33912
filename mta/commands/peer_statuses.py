"""The status of peers on all nodes, for commands and checks."""

from __future__ import annotations

from pathlib import Path

from mta.peers.node_states import NodeStates, PeerStatuses
from mta.peers.status_files import PeerStatusFiles
from mta.settings import Settings
from mta.spool.place import SpoolPlace


def peer_statuses(settings: Settings) -> PeerStatuses:
    """The status of peers, wherever they dialled.  Blocks.  Raises OSError."""
    place, files = SpoolPlace.of(settings), PeerStatusFiles(Path(settings.spool))
    if not place.database or not place.exists():
        return PeerStatuses(place.node, files)
    store = place.shared_tables()
    try:
        others = NodeStates(store, place.node_name).others()
    finally:
        store.close()
    alive = {process.node for process in place.nodes() if process.is_alive}
    return PeerStatuses(place.node_name, files, others, alive)
