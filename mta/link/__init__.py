"""One TCP connection, with SMTP roles on it: time-outs, TLS, back pressure.

`link.Link` is the protocol of Twisted's and the channel of the roles.  `conversation` drives the
coroutine of the roles, `output` holds the octets to send, `deadline` is the timer; `factory`
makes a Link for each connection to a listener, and `round_robin` is the order of those that have
much to do.  Connections that are refused wait in the `waiting_room`.
"""

from mta.link.factory import LinkFactory
from mta.link.link import HANDSHAKE_TIMEOUT, Link
from mta.link.round_robin import RoundRobin
from mta.link.waiting_room import WaitingRoom

__all__ = ["HANDSHAKE_TIMEOUT", "Link", "LinkFactory", "RoundRobin", "WaitingRoom"]
