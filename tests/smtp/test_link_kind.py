"""The kind of a link, told to a peer before the request for our mail."""

from __future__ import annotations

from mta.session import LinkKind
from mta.smtp import link_kind, replies
from mta.smtp.errors import Refusal
from mta.smtp.turn import NO_QUICK_LINK, TurnRequest
from mta.testing import GreetingRole, TurnReplies
from tests.senders import Exchange, SenderTestCase

OFFERED = "250-HELP | 250 XLINK"


class KindTests(SenderTestCase):
    """A sender without mail, which asks for its own."""

    def asking(self, kind: LinkKind, keywords: str = OFFERED) -> Exchange:
        """A connection that stands."""
        self.replies = TurnReplies()
        turn = TurnRequest(["TURN"], self.replies, GreetingRole(), kind=kind)
        return self.opened([], keywords, turn=turn)

    def test_the_main_link(self) -> None:
        """Nothing is told."""
        self.asking(LinkKind.MAIN).talk("C: TURN")

    def test_the_quick_link(self) -> None:
        """It is told first."""
        self.asking(LinkKind.QUICK).talk("C: XLINK QUICK\nS: 250 2.0.0 OK\nC: TURN")

    def test_a_peer_that_takes_none(self) -> None:
        """The connection is not turned: it would take the place of the main link."""
        self.asking(LinkKind.QUICK, "250 HELP").talk("C: QUIT\nS: 221 bye")
        self.assertEqual(self.replies, [NO_QUICK_LINK])
        self.asking(LinkKind.QUICK).talk("C: XLINK QUICK\nS: 504 no\nC: QUIT\nS: 221 bye")
        self.assertEqual(self.replies, [NO_QUICK_LINK])

    def test_parse(self) -> None:
        """Two words are known."""
        self.assertIs(link_kind.parse(b"quick"), LinkKind.QUICK)
        self.assertIs(link_kind.parse(b"MAIN"), LinkKind.MAIN)
        for argument in (b"", b"QUICK 2", b"SLOW"):
            with self.assertRaises(Refusal) as caught:
                link_kind.parse(argument)
            self.assertEqual(caught.exception.reply, replies.BAD_ARGUMENT)
