"""Who is let in, who has to make room, and which hosts have cost too much."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.access import hosts
from mta.access.admission import (
    MAX_OF_HOST,
    MAX_OF_NEWCOMER,
    REFUSAL_DELAY,
    SESSION_COST,
    SESSION_CREDIT,
)
from mta.interfaces import IEvictable
from mta.session import Session
from mta.settings import MINUTE
from mta.smtp.errors import Refusal
from tests.access.test_policy import NEIGHBOUR, STRANGER, PolicyTestCase


@implementer(IEvictable)
class Connection:
    """Notes that it was ended."""

    is_gone = False

    def evict(self) -> None:
        self.is_gone = True


class AdmissionTestCase(PolicyTestCase):
    """What the tests share: sessions with connections."""

    def connect(self, session: Session) -> Connection:
        """Let a session in."""
        connection = Connection()
        self.assertTrue(verifyObject(IEvictable, connection))
        self.passes(self.access.connect(session, connection))
        return connection

    def cost(self, client: str = STRANGER) -> int:
        """What a host has cost in this minute."""
        return self.access._counters.without_mail.count(hosts.key(client))

    def charge(self, commands: int, client: str = STRANGER) -> None:
        """Let a host cost so much more."""
        self.access._counters.without_mail.add(hosts.key(client), commands)


class RoomTests(AdmissionTestCase):
    """All places are taken."""

    def setUp(self) -> None:
        super().setUp()
        self.access = self.make_policy(connections=3)

    def test_the_oldest(self) -> None:
        """It makes room for a host that has cost nothing, and so does the next one."""
        sessions = [self.session(f"192.0.2.{number}") for number in range(3)]
        connections = [self.connect(session) for session in sessions]
        with capturedLogs() as events:
            self.connect(self.session("192.0.2.8"))
            self.assertEqual([each.is_gone for each in connections], [True, False, False])
            self.connect(self.session("192.0.2.9"))
        self.assertEqual([each.is_gone for each in connections], [True, True, False])
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["192.0.2.0 had to make room, as it has brought no mail: 3 connections at once"],
        )
        self.access.disconnect(sessions[0])  # it was taken back: this changes nothing
        self.assertEqual(self.cost("192.0.2.0"), SESSION_COST)

    def test_who_stays(self) -> None:
        """Who brought mail, logged in, or is in a trusted network does."""
        brought, user = self.session(), self.session("192.0.2.1")
        kept = [self.connect(each) for each in (brought, user, self.session(NEIGHBOUR))]
        brought.has_brought_mail, user.identity = True, "alice"
        self.refuses(self.access.connect(self.session("192.0.2.9"), Connection()), "421 4.3.2")
        self.assertFalse(any(each.is_gone for each in kept))

    def test_for_whom(self) -> None:
        """For none that holds places itself, or did so lately."""
        kept = [self.connect(self.session(f"192.0.2.{number}")) for number in range(3)]
        self.charge(MAX_OF_NEWCOMER + 1)
        self.refuses(self.access.connect(self.session(), Connection()), "421 4.3.2")
        self.assertFalse(any(each.is_gone for each in kept))
        self.clock.advance(MINUTE)
        self.connect(self.session())
        self.assertTrue(kept[0].is_gone)

    def test_no_end(self) -> None:
        """Clients that come again and again soon make room for no more of them."""
        others = [f"192.0.2.{number}" for number in range(4)]
        connections = [self.connect(self.session(other)) for other in others]
        for number in range(100):
            session = self.session(others[number % 4])
            asking = Deferred.fromCoroutine(self.access.connect(session, one := Connection()))
            asking.addErrback(lambda _: None)
            connections.append(one)
        evicted = sum(each.is_gone for each in connections)
        self.assertLessEqual(evicted, 4 * (1 + MAX_OF_NEWCOMER // SESSION_COST))


class CostTests(AdmissionTestCase):
    """What hosts are charged with, and what comes of it."""

    def test_as_it_goes(self) -> None:
        """Commands count for all sessions of a host while they go on, and once only."""
        one, other = self.session(), self.session()
        self.connect(one)
        self.connect(other)
        for commands in (100, 200):
            one.commands_without_mail = commands
            self.access.charge(one)
        other.commands_without_mail = 100
        self.access.charge(other)
        self.assertEqual((self.cost(), other.host_commands_without_mail), (300, 300))
        self.access.disconnect(one)
        self.assertEqual(self.cost(), 300 + SESSION_COST)

    def test_too_much(self) -> None:
        """Each session of the host ends then, with a line in the log."""
        session = self.session()
        self.connect(session)
        self.charge(MAX_OF_HOST)
        session.commands_without_mail = 1
        with capturedLogs() as events:
            self.refuses(self._charged(session), "421 4.7.0")
            self.refuses(self._charged(session), "421 4.7.0")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                f"connections from {STRANGER} are refused for a minute:"
                f" no mail in {MAX_OF_HOST + 1} commands"
            ],
        )

    async def _charged(self, session: Session) -> None:
        self.access.charge(session)

    def test_refused(self) -> None:
        """New ones get no place.  Where a proxy names the host later, they wait in theirs."""
        self.charge(MAX_OF_HOST)
        self.assertTrue(self.access.takes(STRANGER))
        self.charge(1)
        self.assertFalse(self.access.takes(STRANGER))
        self.assertTrue(self.access.takes("192.0.2.9"))
        asking = Deferred.fromCoroutine(self.access.connect(self.session()))
        self.assertEqual(self.failureResultOf(asking, Refusal).value.delay, REFUSAL_DELAY)

    def test_no_place(self) -> None:
        """Where there is none, hosts that have cost something wait for their refusal."""
        for limit in ("connections", "connections_per_host"):
            self.access = self.make_policy(**{limit: 1})
            self.connect(session := self.session())
            self.assertTrue(self.access.takes(STRANGER))
            self.charge(MAX_OF_NEWCOMER + 1)
            self.assertFalse(self.access.takes(STRANGER))
            self.assertTrue(self.access.takes("192.0.2.8"))
            self.access.disconnect(session)
            self.assertTrue(self.access.takes(STRANGER))

    def test_this_host(self) -> None:
        """A tunnel or a proxy on this host, which speaks for many, is charged with nothing."""
        for client in ("127.0.0.1", "::1"):
            session = self.session(client)
            self.connect(session)
            session.commands_without_mail = MAX_OF_HOST + 1
            self.access.charge(session)
            self.access.disconnect(session)
            self.connect(self.session(client))

    def test_over(self) -> None:
        """After a minute all is forgotten."""
        self.charge(MAX_OF_HOST + 1)
        self.clock.advance(MINUTE)
        self.connect(self.session())
        self.assertEqual(self.cost(), 0)

    def test_trusted(self) -> None:
        """Hosts of ours, proxies and programs of this host are taken, whatever they cost."""
        self.access = self.make_policy(connections_per_host=1)
        for client in (NEIGHBOUR, "10.255.0.1", "unix"):
            self.charge(MAX_OF_HOST + 1, client)
            session = self.session(client)
            self.connect(session)
            session.commands_without_mail = 1000
            self.access.charge(session)
            self.assertTrue(self.access.takes(client))

    def test_mail_makes_up_for_it(self) -> None:
        """A session with mail does; one with a log-in costs nothing; no credit is kept."""
        self.charge(2 * SESSION_CREDIT)
        for has_mail, user, cost in (
            (True, "", SESSION_CREDIT),
            (False, "alice", SESSION_CREDIT),
            (True, "", 0),
            (True, "", 0),
            (False, "", SESSION_COST),
        ):
            session = self.session(identity=user)
            self.connect(session)
            session.has_brought_mail = has_mail
            self.access.disconnect(session)
            self.assertEqual(self.cost(), cost)

    def test_refusals_cost(self) -> None:
        """Who asks for more connections than it may have pays for each."""
        self.access = self.make_policy(connections_per_host=1)
        self.connect(self.session())
        self.refuses(self.access.connect(self.session()), "421 4.7.0")
        self.assertEqual(self.cost(), SESSION_COST)

    def test_not_counted(self) -> None:
        """A turned connection has no place, and is charged with nothing."""
        session = self.session(turned_peer="office")
        self.passes(self.access.connect(session))
        session.commands_without_mail = 10_000
        self.access.charge(session)
        self.access.disconnect(session)
        self.assertEqual(self.cost(), 0)
