"""The origin of the next message, as XFORWARD tells it.

It counts for one transaction.  All of it comes from XFORWARD: what was not told is not known, and
is never taken from the session with that server.
"""

from __future__ import annotations

from mta.session import UNKNOWN_ADDRESS, Session, Testimony
from mta.smtp import grammar
from mta.smtp.errors import Refusal
from mta.smtp.grammar import ForwardedClient


class ToldOrigin:
    """Collects what the commands before one MAIL tell.

    Where one of them can't be understood, the message has no told origin at all.
    """

    __slots__ = ("_client", "_is_spoilt")

    def __init__(self) -> None:
        self._client: ForwardedClient | None = None
        self._is_spoilt = False

    def add(self, argument: bytes) -> None:
        """Take the argument of one more command.  Raises Refusal."""
        try:
            self._client = grammar.parse_xforward(argument, self._client or ForwardedClient())
        except Refusal:
            self._is_spoilt = True
            raise

    def clear(self) -> None:
        """Forget all of it, as the transaction is over."""
        self._client = None
        self._is_spoilt = False

    def session(self, session: Session, server: str) -> Session | None:
        """Return the client as a session of its own.

        None: nothing was told.  `session` is that with the server which told it, `server` the
        address of that.
        """
        client = self._client
        if client is None or self._is_spoilt:
            return None
        return Session(
            session.service,
            client.address or UNKNOWN_ADDRESS,
            None,
            session.turned_peer,
            hello=client.hello,
            extended=client.protocol not in ("", "SMTP"),
            port=client.port,
            name=client.name,
            pointer=client.name,
            told=Testimony(
                session.turned_peer or server,
                client.ident,
                client.protocol,
                client.source == grammar.LOCAL,
            ),
        )
