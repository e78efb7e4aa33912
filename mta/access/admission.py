"""The admission of clients: how many at once, and at what cost.

Clients that only hold places can't keep others away: where all places are taken, the client that
has been here longest without mail makes room for a host that has cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from mta.access import hosts
from mta.access.counters import Counters, Place
from mta.interfaces import IEvictable
from mta.limited_log import LimitedLog
from mta.mail import Reply
from mta.session import LOCAL_ADDRESS, Session
from mta.settings import Network
from mta.smtp.errors import Refusal

TOO_MANY_CONNECTIONS = Reply(421, "4.3.2", ("Too many connections, try again later",))
TOO_MANY_FROM_HOST = Reply(421, "4.7.0", ("Too many connections from your host",))
TOO_MUCH_WITHOUT_MAIL = Reply(
    421, "4.7.0", ("Too much from your host without any mail, try again in a minute",)
)
# Commands without mail from one host in a minute: about a hundredth of a processor.
MAX_OF_HOST = 12_000
SESSION_COST = 30  # commands that a session without mail costs as much as, beside its own
SESSION_CREDIT = 50  # commands that one with mail makes up for
# Commands without mail of a host that others make room for: those of ten sessions.
MAX_OF_NEWCOMER = 300
REFUSAL_DELAY = 10.0  # seconds that a host which has cost too much waits for its refusal
# Tunnels and proxies on this host speak for many clients: they are charged with nothing.
_THIS_HOST = frozenset(map(hosts.key, ("127.0.0.1", "::1")))


class Admission:
    """The clients that are let in, by the rules of one configuration.

    `limit` connections at once.  Clients in `trusted` networks are never turned away for what they
    cost; each of the `proxies` speaks for many.
    """

    log = Logger()

    def __init__(
        self,
        counters: Counters,
        limit: int,
        trusted: Sequence[Network],
        proxies: Sequence[Network],
    ) -> None:
        self._counters = counters
        self._limit = limit
        self._trusted = trusted
        self._proxies = proxies
        self._limited = LimitedLog(self.log)

    def takes(self, client: str) -> bool:
        """See `IAdmission.takes`.

        A host that has cost something would come again and again where it has no place.
        """
        host, counters = hosts.key(client), self._counters
        cost = counters.without_mail.count(host)
        if cost <= MAX_OF_NEWCOMER or self._is_trusted(client):
            return True
        return cost <= MAX_OF_HOST and not (counters.per_host.is_full(host) or self._is_full)

    def admit(self, session: Session, connection: IEvictable | None) -> None:
        """Give a session a place.

        It may lose it to others where there is a `connection`.  Raises Refusal.
        """
        counters, host = self._counters, hosts.key(session.client)
        is_trusted = self._is_trusted(session.client)
        if hosts.is_in(session.client, self._proxies):
            host = LOCAL_ADDRESS  # a proxy speaks for many clients, and each will be counted
        cost = counters.without_mail.count(host)
        if self._is_full and not (cost <= MAX_OF_NEWCOMER and self._make_room()):
            self._refuse(host, TOO_MANY_CONNECTIONS)
        if host != LOCAL_ADDRESS and not counters.per_host.acquire(host):
            self._refuse(host, TOO_MANY_FROM_HOST)
        place = Place(session, host, None if is_trusted else connection)
        counters.admitted[id(session)] = place
        session.host_commands_without_mail = cost
        if cost > MAX_OF_HOST and not is_trusted:
            raise Refusal(TOO_MUCH_WITHOUT_MAIL, delay=REFUSAL_DELAY)

    def charge(self, session: Session) -> None:
        """Charge the host of a session with its commands so far.

        Raises Refusal where that is too much.
        """
        place = self._counters.admitted.get(id(session))
        if place is None or place.host == LOCAL_ADDRESS:
            return
        self._charge(place)
        cost = self._counters.without_mail.count(place.host)
        session.host_commands_without_mail = cost
        if cost > MAX_OF_HOST and not self._is_trusted(session.client):
            self._limited.warn(
                "refused",
                "connections from {host} are refused for a minute: no mail in {count} commands",
                host=place.host,
                count=cost,
            )
            raise Refusal(TOO_MUCH_WITHOUT_MAIL)

    def release(self, session: Session) -> None:
        """Take the place of a session back, where it has one."""
        place = self._counters.admitted.pop(id(session), None)
        if place is not None and place.host != LOCAL_ADDRESS:
            self._counters.per_host.release(place.host)
            self._charge(place)
            credit = SESSION_CREDIT if session.has_brought_mail else 0
            self._add(place.host, -credit if session.is_welcome else SESSION_COST)

    @property
    def _is_full(self) -> bool:
        return len(self._counters.admitted) >= self._limit

    def _is_trusted(self, client: str) -> bool:
        return client == LOCAL_ADDRESS or any(
            hosts.is_in(client, networks) for networks in (self._trusted, self._proxies)
        )

    def _charge(self, place: Place) -> None:
        commands = place.session.commands_without_mail
        self._add(place.host, max(0, commands - place.charged))
        place.charged = max(place.charged, commands)

    def _add(self, host: str, commands: int) -> None:
        """Count for a host; what it has to its credit is forgotten."""
        counter = self._counters.without_mail
        commands = max(commands, -counter.count(host))
        if commands and host not in _THIS_HOST:
            counter.add(host, commands)

    def _refuse(self, host: str, reply: Reply) -> None:
        if host != LOCAL_ADDRESS:
            self._add(host, SESSION_COST)
        raise Refusal(reply)

    def _make_room(self) -> bool:
        """End the oldest session without mail.  False: there is none."""
        for place in self._counters.admitted.values():
            if place.connection is not None and not place.session.is_welcome:
                break
        else:
            return False
        self._limited.warn(
            "evicted",
            "{host} had to make room, as it has brought no mail: {count} connections at once",
            host=place.host,
            count=len(self._counters.admitted),
        )
        assert place.connection is not None
        self.release(place.session)
        place.connection.evict()
        return True
