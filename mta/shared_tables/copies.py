"""Small documents of which each node has a copy in its folder.

They are there while the database is not, and what reads them need not know of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from mta.shared_tables.forms import TableForm, TableSet
from mta.shared_tables.interfaces import IDocuments, IStatements, ITableStore

TABLES = TableSet(
    "copies",
    (
        TableForm(
            "node_copy",
            "kind TEXT, name TEXT, digest TEXT NOT NULL, document BYTEA NOT NULL,"
            " PRIMARY KEY (kind, name)",
        ),
    ),
)
GONE = ""  # the digest of a document that was removed
MAX_AT_ONCE = 50  # documents of one transaction, of some KiB mostly: others wait for its end


def first_told(store: ITableStore, kind: str, name: str, document: bytes) -> bytes:
    """The document that the first node told.

    It is ours where none did.  Blocks.  Raises OSError.
    """

    def told(statements: IStatements) -> bytes:
        insert = "INSERT INTO node_copy VALUES (?, ?, ?, ?) ON CONFLICT (kind, name) DO NOTHING"
        statements.execute(insert, (kind, name, _digest(document), document))
        return _fetched(statements, kind, name)

    return store.open(TABLES).change(told)


def _fetched(statements: IStatements, kind: str, name: str) -> bytes:
    select = "SELECT document FROM node_copy WHERE kind = ? AND name = ?"
    (document,) = statements.execute(select, (kind, name)).fetchone()
    return bytes(document)


class Copies:
    """The documents of one kind.

    What changed here since the last `exchange`, and nowhere else, is handed over; all else is
    taken from the others.  `removes`: what is removed here is removed everywhere.
    """

    def __init__(
        self, kind: str, documents: IDocuments, store: ITableStore, *, removes: bool = False
    ) -> None:
        self._kind = kind
        self._documents = documents
        self._tables = store.open(TABLES)
        self._removes = removes
        self._agreed: Mapping[str, str] = {}  # digests, of the last exchange
        self._seen: dict[str, tuple[object, str]] = {}  # stamps of our documents, and digests

    def exchange(self) -> None:
        """Hand over what changed here, and take what changed elsewhere.

        Blocks.  Raises OSError.
        """
        left, before = self._exchange_some(), None
        while left and left != before:
            left, before = self._exchange_some(), left

    def _exchange_some(self) -> int:
        """Exchange a bounded number of documents; return how many are left."""
        agreed, taken, left = self._tables.change(self._exchanged)
        if taken:
            self._documents.take(taken)
        self._agreed = agreed
        return left

    def _exchanged(
        self, statements: IStatements
    ) -> tuple[Mapping[str, str], Mapping[str, bytes], int]:
        """The digests agreed on, documents to take, how many are left."""
        select = "SELECT name, digest FROM node_copy WHERE kind = ?"
        theirs: dict[str, str] = dict(statements.execute(select, (self._kind,)).fetchall())
        ours = self._digests()
        names = [name for name in {**ours, **theirs} if ours.get(name, GONE) != theirs.get(name)]
        agreed, taken = {**theirs}, {}
        for name in names[:MAX_AT_ONCE]:
            if self._is_news(name, ours.get(name, GONE), theirs.get(name)):
                agreed[name] = self._hand_over(statements, name)
            else:
                taken[name] = _fetched(statements, self._kind, name)
        left = names[MAX_AT_ONCE:]
        for name in left:
            agreed.pop(name, None)
        agreed |= {name: self._agreed[name] for name in left if name in self._agreed}
        return agreed, taken, len(left)

    def _is_news(self, name: str, mine: str, their: str | None) -> bool:
        """Tell whether the others are to have our document instead of theirs."""
        if their is None:
            return True
        agreed = self._agreed.get(name)
        return their == agreed != mine and (mine != GONE or self._removes)

    def _hand_over(self, statements: IStatements, name: str) -> str:
        document = self._documents.read(name)
        digest = _digest(document)
        statements.execute(
            "INSERT INTO node_copy VALUES (?, ?, ?, ?) ON CONFLICT (kind, name)"
            " DO UPDATE SET digest = excluded.digest, document = excluded.document",
            (self._kind, name, digest, document),
        )
        return digest

    def _digests(self) -> Mapping[str, str]:
        """The digests of our documents.

        Those that did not change are not read again.
        """
        self._seen = dict(self._looked_at(self._documents.stamps()))
        return {name: digest for name, (_, digest) in self._seen.items() if digest}

    def _looked_at(self, stamps: Mapping[str, object]) -> Iterator[tuple[str, Any]]:
        for name, stamp in stamps.items():
            seen = self._seen.get(name)
            is_known = seen is not None and seen[0] == stamp
            yield name, seen if is_known else (stamp, _digest(self._documents.read(name)))


def _digest(document: bytes) -> str:
    return sha256(document).hexdigest() if document else GONE
