"""The status of the peers on all nodes that share a spool.

Each node tells its own in a table; files of its folder have it first.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from mta.peers.status_files import MAX_EXCHANGES, PeerStatus, PeerStatusFiles
from mta.session import LinkKind
from mta.shared_tables.forms import TableForm, TableSet
from mta.shared_tables.interfaces import IStatements, ITableStore

TABLES = TableSet(
    "peers",
    (
        TableForm(
            "peer_state", "node TEXT, peer TEXT, state TEXT NOT NULL, PRIMARY KEY (node, peer)"
        ),
    ),
)

MAX_AT_ONCE = 100  # rows of one transaction: others wait for its end


@dataclass(frozen=True, slots=True)
class PeerOnNode:
    """The status of a peer on one node.

    `links`: since when they stand there, in seconds since the epoch; those that don't are left out.
    """

    node: str
    peer: str
    status: PeerStatus
    links: Mapping[LinkKind, float]

    @classmethod
    def here(cls, node: str, peer: str, files: PeerStatusFiles) -> PeerOnNode:
        """The one on this node.  Blocks.  Raises OSError."""
        found = {kind: files.link_since(peer, kind) for kind in LinkKind}
        links = {kind: since for kind, since in found.items() if since is not None}
        return cls(node, peer, files.read(peer), links)

    @classmethod
    def of(cls, node: str, peer: str, text: str) -> PeerOnNode:
        """The one in a row of the table, of another version perhaps."""
        try:
            values = json.loads(text)
            links = {LinkKind(kind): float(since) for kind, since in values["links"].items()}
            return cls(node, peer, PeerStatus.of(values["status"]), links)
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls(node, peer, PeerStatus(), {})

    @property
    def text(self) -> str:
        """The row of the table."""
        links = {kind.value: since for kind, since in self.links.items()}
        return json.dumps({"status": asdict(self.status), "links": links})


class NodeStates:
    """The table, for one node.  Methods block, and raise OSError."""

    def __init__(self, store: ITableStore, node: str) -> None:
        self._tables = store.open(TABLES)
        self._node = node
        self._seen: dict[str, tuple[object, PeerOnNode, str]] = {}  # with stamps and rows
        self._told: dict[str, str] | None = None  # rows of ours in the table

    def tell(self, files: PeerStatusFiles, peers: Collection[str]) -> None:
        """Tell the status of these peers on this node, where it changed."""
        self._seen = {peer: self._looked_at(files, peer) for peer in peers}
        if self._told is None:
            self._told = self._tables.change(self._rows)
        states = {peer: text for peer, (_, _, text) in self._seen.items()}
        news = [peer for peer, text in states.items() if self._told.get(peer) != text]
        gone = [peer for peer in self._told if peer not in states]
        for start in range(0, len(news), MAX_AT_ONCE):
            rows = [(self._node, peer, states[peer]) for peer in news[start : start + MAX_AT_ONCE]]
            self._tables.change(partial(_put, rows=rows))
        if gone:
            self._tables.change(partial(_remove, rows=[(self._node, peer) for peer in gone]))
        self._told = states

    def others(self) -> Sequence[PeerOnNode]:
        """All of the other nodes."""
        select = "SELECT node, peer, state FROM peer_state WHERE node <> ? ORDER BY node"
        rows = self._tables.change(lambda each: each.execute(select, (self._node,)).fetchall())
        return [PeerOnNode.of(*row) for row in rows]

    def _looked_at(self, files: PeerStatusFiles, peer: str) -> tuple[object, PeerOnNode, str]:
        """The status of a peer, read again where it may have changed."""
        stamp, seen = files.stamp(peer), self._seen.get(peer)
        if seen is not None and seen[0] == stamp and not _has_lost(seen[1], files):
            return seen
        state = PeerOnNode.here(self._node, peer, files)
        return stamp, state, state.text

    def _rows(self, statements: IStatements) -> dict[str, str]:
        select = "SELECT peer, state FROM peer_state WHERE node = ?"
        return dict(statements.execute(select, (self._node,)).fetchall())


def _has_lost(state: PeerOnNode, files: PeerStatusFiles) -> bool:
    """Tell whether a link ended: that leaves no other sign."""
    return any(files.link_since(state.peer, kind) is None for kind in state.links)


def _put(statements: IStatements, rows: Sequence[tuple[str, str, str]]) -> None:
    statements.execute_each(
        "INSERT INTO peer_state VALUES (?, ?, ?) ON CONFLICT (node, peer)"
        " DO UPDATE SET state = excluded.state",
        rows,
    )


def _remove(statements: IStatements, rows: Sequence[tuple[str, str]]) -> None:
    statements.execute_each("DELETE FROM peer_state WHERE node = ? AND peer = ?", rows)


class PeerStatuses:
    """The status of peers, on all nodes together.

    `others` are those of the other nodes; of the ones that are not `alive` no link stands.
    """

    def __init__(
        self,
        node: str,
        files: PeerStatusFiles,
        others: Sequence[PeerOnNode] = (),
        alive: Collection[str] = (),
    ) -> None:
        self._node = node
        self._files = files
        self._others: defaultdict[str, list[PeerOnNode]] = defaultdict(list)  # by peer
        for each in others:
            state = each if each.node in alive else replace(each, links={})
            self._others[each.peer].append(state)

    def on_nodes(self, peer: str) -> Sequence[PeerOnNode]:
        """The status on each node, this one first.  Blocks.  Raises OSError."""
        here = PeerOnNode.here(self._node, peer, self._files)
        return [here, *self._others.get(peer, ())]

    def links(self, peers: Collection[str]) -> Counter[str]:
        """The number of links that stand, by node.  Blocks.  Raises OSError."""
        found: Counter[str] = Counter()
        for peer in peers:
            for each in self.on_nodes(peer):
                found[each.node] += len(each.links)
        return found

    def read(self, peer: str) -> PeerStatus:
        """The status of a peer.  Blocks.  Raises OSError."""
        return joined(self.on_nodes(peer))

    def link_since(self, peer: str, kind: LinkKind = LinkKind.MAIN) -> float | None:
        """The time since which the newest link of a kind stands.

        None: none does.  Blocks.  Raises OSError.
        """
        return newest_link(self.on_nodes(peer), kind)


def newest_link(found: Sequence[PeerOnNode], kind: LinkKind) -> float | None:
    """The time since which the newest link stands, if any."""
    return max((each.links[kind] for each in found if kind in each.links), default=None)


def joined(found: Sequence[PeerOnNode]) -> PeerStatus:
    """One status for that on several nodes.

    The last exchange counts, wherever it was.
    """
    if len(found) == 1:
        return found[0].status
    statuses = [each.status for each in sorted(found, key=_last_link)]
    status = PeerStatus()
    for each in statuses:
        status = replace(status.plus(each.counts), exchanges=(*status.exchanges, *each.exchanges))
    ended = max(statuses, key=lambda each: each.last_exchange or 0.0)
    failed = max(statuses, key=lambda each: each.error_at or 0.0)
    if (failed.error_at or 0.0) > (ended.last_exchange or 0.0):
        status = replace(
            status,
            last_error=failed.last_error,
            error_at=failed.error_at,
            failing_since=failed.failing_since,
            next_try=failed.next_try,
        )
    newest = sorted(status.exchanges, key=lambda each: each.ended, reverse=True)
    return replace(
        status,
        last_exchange=ended.last_exchange,
        sent=ended.sent,
        received=ended.received,
        exchanges=tuple(newest[:MAX_EXCHANGES]),
        round_trip=statuses[-1].round_trip,
        obstacle=statuses[-1].obstacle,
    )


def _last_link(state: PeerOnNode) -> tuple[bool, float]:
    """The time of the last connection on a node.

    One that stands is later than all others.
    """
    since = max(state.links.values(), default=0.0)
    return bool(state.links), since or state.status.last_exchange or 0.0
