"""``mta turn``: one exchange with a peer that we dial, now."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from mta.commands.console import (
    Failed,
    add_command,
    duration,
    printable,
    seconds,
    settings_of,
    size,
)
from mta.commands.known import is_known
from mta.commands.terminal import CLEAR_LINE
from mta.mail import Reply
from mta.peers.interfaces import ITallyWatch
from mta.peers.tally import Tally
from mta.privileges import require_no_root
from mta.queued import HopFailure
from mta.settings import MINUTE, Peer, Settings
from mta.smtp.dialogue import GREETING

# The server and its reactor take a while: they are imported where an exchange begins.
if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from mta.commands.console import Subparsers

# What a person can do about a reply.
_ADVICE = {
    **dict.fromkeys((534, 535), "the log-in was refused: check the user and secret in `connect`"),
    **dict.fromkeys((530, 538), "it wants a log-in: give a user and secret in `connect`"),
    **dict.fromkeys((450, 459), "it has no mail of these domains for us: check `domains`"),
}


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(subparsers, "turn", _run, "exchange mail with a peer that we dial, now")
    is_known(parser.add_argument("peer", metavar="PEER"), "peers")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=10 * MINUTE,
        metavar="TIME",
        help="give up after this time (default: 10m)",
    )


def _run(arguments: argparse.Namespace) -> None:

    settings = settings_of(arguments, secrets=True)
    peer = _peer(settings, arguments.peer)
    require_no_root(settings, has_uid=False)
    tally = _Progress(peer).wait_for(arguments, settings)
    if tally.lost:
        raise Failed(f"{peer.name}: {printable(tally.error)}; {_summary(tally)}")
    if peer.method == "etrn":
        for reply in tally.replies:
            print(printable(str(reply)))
    print(_summary(tally))


def _peer(settings: Settings, name: str) -> Peer:
    """The peer to dial.  Raises Failed."""
    peer = settings.peers.get(name)
    if peer is None:
        known = ", ".join(name for name, peer in settings.peers.items() if peer.connect)
        raise Failed(f"no peer is called {name!r}; those that we dial: {known or 'none'}")
    if peer.connect is None:
        raise Failed(f"the peer {name!r} dials us: it has no `connect`")
    return peer


@implementer(ITallyWatch)
class _Progress:
    """The exchange while it runs, and its line on the terminal."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._tally = Tally()
        self._is_shown = False
        self._results: list[Tally | Failure] = []

    def wait_for(self, arguments: argparse.Namespace, settings: Settings) -> Tally:
        """Run the reactor until the exchange is over.  Raises Failed."""
        from twisted.internet.task import react

        with suppress(SystemExit):  # react ends with it, always
            react(self._exchange, (settings, arguments.timeout))
        self._clear()
        if not self._results:
            raise Failed(f"{self._peer.name}: interrupted; {_summary(self._tally)}")
        (result,) = self._results
        if isinstance(result, Tally):
            return result
        raise Failed(f"{self._peer.name}: {self._reason(result, arguments.timeout)}")

    def _exchange(self, reactor: Any, settings: Settings, timeout: float) -> Deferred[None]:
        from twisted.internet.defer import Deferred

        from mta.service.exchange import exchange_alone
        from mta.service.steady import use_steady_clock

        use_steady_clock(reactor)
        exchange = Deferred.fromCoroutine(exchange_alone(settings, self._peer, self, reactor))
        return exchange.addTimeout(timeout, reactor).addBoth(self._results.append)

    def changed(self, tally: Tally) -> None:
        """See `ITallyWatch.changed`."""
        self._tally = tally
        if sys.stderr.isatty():
            line = f"{self._peer.name}: {_summary(tally)}, {size(tally.octets)}"
            print(f"{CLEAR_LINE}{line}", end="", file=sys.stderr, flush=True)
            self._is_shown = True

    def _clear(self) -> None:
        """Leave the line of the terminal to what is printed next."""
        if self._is_shown:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)

    def _reason(self, failure: Failure, timeout: float) -> str:
        """The reason why it failed.  Raises what is a fault of our own."""
        from twisted.internet.defer import TimeoutError

        from mta.sealing.keys import SealKeyFault
        from mta.tls import TLSFault
        from mta.users.file import UserFault

        failure.trap(HopFailure, TimeoutError, OSError, TLSFault, UserFault, SealKeyFault)
        error = failure.value
        if isinstance(error, HopFailure):
            return _advised(self._peer, error.outcome.reply)
        if isinstance(error, TimeoutError):
            return f"not over after {duration(timeout)}; {_summary(self._tally)}"
        return str(error)


def _advised(peer: Peer, reply: Reply) -> str:
    advice = _ADVICE.get(reply.code)
    if GREETING.phrase in str(reply) and peer.connect and not peer.connect.implicit_tls:
        advice = "a port that begins with TLS, as 465 does, is for smtps://"
    if reply.code in (500, 502):
        advice = _advice_on_method(peer, reply)
    return printable(str(reply)) + (f" ({advice})" if advice else "")


def _advice_on_method(peer: Peer, reply: Reply) -> str:
    """Advice where the peer does not know the method, or refuses it."""
    assert peer.connect is not None
    if reply.enhanced.startswith("5.7"):
        who = f"the user {peer.connect.user!r}" if peer.connect.user else "this host"
        return f"{who} is no peer there, or not for `method: {peer.method}`: look at its `peers`"
    return (
        f"port {peer.connect.port} there does not know {peer.method.upper()}: "
        "another port may, 366 or 465, or another `method`"
    )


def _summary(tally: Tally) -> str:
    return f"sent {tally.sent}, received {tally.received}"
