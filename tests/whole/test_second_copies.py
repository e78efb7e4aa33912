"""A message that comes to the office again, whose filters say something else of it by then."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed

from mta.mail import Reply
from mta.testing import FakeInspector
from mta.verdict import Verdict
from tests.passing import BODY, GTUBE, PassingCase

STAGES = ("message", "recipient", "data", "header", "body", "end")
LATER = Reply(451, "4.7.1", ("Later",))
AGAIN = 130  # seconds in which a link comes again, and offers what was deferred again


class SlowInspector(FakeInspector):
    """Takes its time at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.verdicts: Deferred[None] = succeed(None)

    async def end(self, section: bytes) -> Verdict:
        """Wait, and then see it."""
        await self.verdicts
        return await super().end(section)


class SecondCopyTests(PassingCase):
    """The office has taken a message, and the reply is lost."""

    inspector_type = SlowInspector

    @property
    def slow(self) -> SlowInspector:
        """The inspector of the office."""
        assert isinstance(self.inspector, SlowInspector)
        return self.inspector

    def lose_reply(self) -> None:
        """Break the link in place of the next 250 after content."""
        wire = self.wires[-1]

        def lost(octets: bytes) -> bytes:
            if b"OK queued" not in octets:
                return octets
            wire.left = 0
            return b""

        wire.transmitted = lost  # type: ignore[method-assign]

    def send(self, *names: str) -> None:
        """Send a message whose reply is lost, so that it is ours."""
        self.lose_reply()
        origin = self.origin()
        origin.send(*(names or ("bob",)))
        self.carry()
        self.assertTrue(self.wires[-1].is_cut or len(self.wires) > 1)

    def state(self) -> tuple[int, int, list[bytes]]:
        """How many messages are kept, how many notices there are, and what the office has."""
        return len(self.kept), len(self.provider.spool.notices), self.office.bodies

    def test_refused(self) -> None:
        """At whatever stage: it is known, and there is no notice."""
        for stage in STAGES:
            for reply in (GTUBE, LATER):
                self.make()
                self.send()
                self.slow.refusals[stage] = reply
                self.advance(AGAIN)
                self.assertEqual(self.state(), (0, 0, [BODY]), stage)
                self.cut()

    def test_a_mailbox_that_is_gone(self) -> None:
        """Our own rules are no other matter."""
        self.send()
        self.office.router.refusals["bob@office.example"] = GTUBE
        self.advance(AGAIN)
        self.assertEqual((len(self.kept), len(self.provider.spool.notices)), (0, 0))

    def test_what_did_not_come(self) -> None:
        """Who has no copy is refused, at each stage; who has one is not."""
        for stage in STAGES:
            self.make()
            self.office.router.refusals["eve@office.example"] = LATER
            self.send("bob", "eve")
            del self.office.router.refusals["eve@office.example"]
            self.slow.refusals[stage] = GTUBE
            self.advance(AGAIN)
            (notice,) = self.provider.spool.notices
            self.assertIn(b"eve@office.example", notice.content, stage)
            self.assertEqual(self.office.bodies, [BODY])
            self.cut()

    def test_a_first_copy_that_is_refused(self) -> None:
        """It is not known, and the second copy has an answer of its own."""
        self.slow.refusals["end"] = LATER
        origin = self.origin()
        origin.send("bob")
        self.carry()
        self.slow.refusals["end"] = GTUBE
        self.advance(AGAIN)
        self.assertEqual(self.state()[1:], (1, []))

    def under_way(self) -> Deferred[None]:
        """Send a message whose first copy is looked at still when there is another link.

        So it is where the office reads its configuration again.
        """
        verdict: Deferred[None] = Deferred()
        self.slow.verdicts = verdict
        origin = self.origin()
        origin.send("bob")
        self.carry()
        self.cut()
        self.slow.verdicts = succeed(None)
        self.office.configure(inspectors=[self.slow])
        self.office.customer.keep_up([self.office.peer])
        return verdict

    def test_under_way(self) -> None:
        """The second copy comes later, whatever its own verdict would be."""
        for stage in (None, *STAGES):
            for end in ({}, {"end": GTUBE}):
                self.make()
                verdict = self.under_way()
                if stage is not None:
                    self.slow.refusals[stage] = GTUBE
                self.advance(20)
                self.assertEqual(self.state(), (1, 0, []), stage)
                self.slow.refusals = dict(end)
                verdict.callback(None)
                self.carry()
                self.advance(AGAIN)
                expected = (1, []) if end else (0, [BODY])
                self.assertEqual(self.state()[1:], expected, stage)
                self.cut()

    def test_a_spool_that_can_not_be_read(self) -> None:
        """In doubt it comes later."""
        self.send()
        self.slow.refusals["recipient"] = GTUBE
        self.office.spool.failure = OSError("disk")
        self.advance(20)
        self.assertEqual((len(self.kept), len(self.provider.spool.notices)), (1, 0))
        self.office.spool.failure = None
        self.advance(AGAIN)
        self.assertEqual(self.state(), (0, 0, [BODY]))
