"""Mail that was just accepted, on its way to the runner."""

from collections.abc import Collection

from twisted.logger import capturedLogs, formatEvent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import IAcceptedMail, IPickedUpMail, ISessionMeter
from mta.mail import Reply
from mta.queue.accepted import AcceptedMail
from mta.session import Session, Testimony
from mta.settings import Service
from tests.queue.runners import RunnerTests, message


@implementer(ISessionMeter)
class Meter:
    """Remembers what was accepted."""

    def __init__(self) -> None:
        self.services: list[Service] = []

    def session(self, service: Service) -> None:
        """See `ISessionMeter.session`."""

    def accepted(self, service: Service) -> None:
        """See `ISessionMeter.accepted`."""
        self.services.append(service)

    def replied(self, reply: Reply) -> None:
        """See `ISessionMeter.replied`."""


class AcceptedMailTests(RunnerTests):
    """It is logged, counted and delivered."""

    def setUp(self) -> None:
        super().setUp()
        self.meter = Meter()
        self.mail = AcceptedMail(self.runner, self.meter)

    def delivered(self) -> Collection[str]:
        """The queue ids of what was handed to the agent."""
        self.clock.advance(0)
        return [id for _, id, _ in self.agent.deliveries]

    def test_interfaces(self) -> None:
        """It takes mail from sessions and from the maildrop."""
        verifyObject(IAcceptedMail, self.mail)
        verifyObject(IPickedUpMail, self.mail)

    def test_by_a_session(self) -> None:
        """The log says which client brought it, and the meter counts it."""
        session = Session(Service.SUBMISSION, "192.0.2.1", None, extended=True)
        with capturedLogs() as logs:
            self.mail.accepted(self.queue.lend(message("1", "x@a.example")), session)
        (event,) = logs
        self.assertEqual(
            ("1", "s@s.example", "192.0.2.1", "ESMTP"),
            (event["queue_id"], event["reverse_path"], event["client"], event["protocol"]),
        )
        self.assertEqual([Service.SUBMISSION], self.meter.services)
        self.assertEqual(["1"], self.delivered())

    def test_through_another_server(self) -> None:
        """The log says which client brought it there, and what it is called there."""
        for id, protocol, start, end in (
            ("7Zk", "ESMTPS", "from 198.51.100.7 by ESMTPS:", "octets, via vps as 7Zk"),
            ("", "", "from 198.51.100.7 by unknown:", "octets, via vps"),
        ):
            told = Testimony("vps", id, protocol)
            session = Session(Service.SMTP, "192.0.2.1", None, "vps")
            session.forwarded = Session(Service.SMTP, "198.51.100.7", None, "vps", told=told)
            with capturedLogs() as logs:
                self.mail.accepted(self.queue.lend(message("1", "x@a.example")), session)
            (event,) = logs
            line = formatEvent(event)
            self.assertIn(start, line)
            self.assertTrue(line.endswith(end), line)

    def test_from_the_maildrop(self) -> None:
        """The log says which user left it."""
        with capturedLogs() as logs:
            self.mail.picked_up(self.queue.lend(message("1", "x@a.example")), 1000)
        (event,) = logs
        self.assertEqual(("1", 1000), (event["queue_id"], event["userid"]))
        self.assertEqual(["1"], self.delivered())
