"""A name server on UDP with a table.

``python -m tests.interop.name_server JSON`` runs one on port 53.  The table maps domains to MX
records (``[[10, "host"]]``), hosts to addresses (``"192.0.2.1"``), names to texts
(``{"TXT": ["v=spf1 -all"]}``), to the names of an address (``{"PTR": ["host"]}``) or to name
servers (``{"NS": ["host"]}``), or to None: those can't be asked for.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase


class NameServer:
    """Answers from a table; a name that is not in it does not exist."""

    def __init__(self, table: Mapping[str, Any], port: int = 0, host: str = "127.0.0.1") -> None:
        self._table = table
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, port))
        self.address = "{}:{}".format(*self._socket.getsockname())

    def serve(self) -> None:
        """Answer until the socket is closed, which raises OSError."""
        while True:
            octets, client = self._socket.recvfrom(4096)
            question = dns.Message()
            question.fromStr(octets)
            self._socket.sendto(self._answer(question).toStr(), client)

    def close(self) -> None:
        """Answer no more."""
        self._socket.close()

    def _answer(self, question: dns.Message) -> dns.Message:
        answer = dns.Message(question.id, answer=1, recAv=1)
        answer.queries = question.queries
        [query] = question.queries
        name = query.name.name.decode().lower()
        if name not in self._table:
            answer.rCode = dns.ENAME
        elif self._table[name] is None:
            answer.rCode = dns.ESERVER
        answer.answers = [
            dns.RRHeader(name.encode(), query.type, dns.IN, 60, record)
            for record in _records(self._table.get(name), query.type)
        ]
        return answer


def answering(case: SynchronousTestCase, table: Mapping[str, Any]) -> str:
    """Answer from a table until the test is over; returns the address for questions."""
    server = NameServer(table)
    case.addCleanup(server.close)

    def serve() -> None:
        with contextlib.suppress(OSError, ValueError):
            server.serve()

    threading.Thread(target=serve, daemon=True).start()
    return server.address


def _records(
    known: str | Mapping[str, Sequence[str]] | Sequence[tuple[int, str]] | None, kind: int
) -> list[Any]:
    if isinstance(known, Mapping):
        if kind == dns.TXT:
            return [_text(text.encode()) for text in known.get("TXT", ())]
        if kind == dns.PTR:
            return [dns.Record_PTR(host.encode(), 60) for host in known.get("PTR", ())]
        if kind == dns.NS:
            return [dns.Record_NS(host.encode(), 60) for host in known.get("NS", ())]
        return []
    if isinstance(known, str):
        if kind == (dns.AAAA if ":" in known else dns.A):
            return [(dns.Record_AAAA if ":" in known else dns.Record_A)(known, 60)]
        return []
    if known is None or kind != dns.MX:
        return []
    return [dns.Record_MX(preference, host.encode(), 60) for preference, host in known]


def _text(octets: bytes) -> Any:
    """A text in strings of at most 255 octets."""
    strings = [octets[at : at + 255] for at in range(0, len(octets), 255)]
    return dns.Record_TXT(*strings, ttl=60)


if __name__ == "__main__":
    server = NameServer(json.loads(sys.argv[1]), 53)
    print("ready", flush=True)
    server.serve()
