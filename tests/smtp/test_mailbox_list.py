"""Our list of mailboxes, told to a peer before the request for our mail."""

from __future__ import annotations

from base64 import b64encode

from mta.smtp.mailbox_list import PART_SIZE, digest_of
from mta.smtp.turn import TurnRequest
from mta.testing import GreetingRole, TurnReplies
from tests.senders import Exchange, SenderTestCase

OFFERED = "250-HELP | 250 XMAILBOXES"
LIST = b'{"example.com": {}}' + b" " * PART_SIZE
PARTS = [b64encode(LIST[:PART_SIZE]).decode(), b64encode(LIST[PART_SIZE:]).decode()]


class ListTests(SenderTestCase):
    """A sender without mail, which asks for its own."""

    def asking(self, document: bytes = LIST, keywords: str = OFFERED) -> Exchange:
        """A connection that stands."""
        turn = TurnRequest(["TURN"], TurnReplies(), GreetingRole(), mailboxes=document)
        return self.opened([], keywords, turn=turn)

    def test_a_new_list(self) -> None:
        """It goes in parts, and then comes the request."""
        exchange = self.asking()
        exchange.talk(f"""\
            C: XMAILBOXES CHECK {digest_of(LIST)}
            S: 250 2.0.0 SEND
            C: XMAILBOXES PART {PARTS[0]}
            S: 250 OK
            C: XMAILBOXES PART {PARTS[1]}
            S: 250 OK
            C: XMAILBOXES END {digest_of(LIST)}
            S: 250 OK
            C: TURN""")

    def test_a_list_that_is_known(self) -> None:
        """One command is enough, and a refusal is no failure."""
        for reply in ("250 2.0.0 KNOWN", "530 no", "502 no"):
            self.asking().talk(f"C: XMAILBOXES CHECK {digest_of(LIST)}\nS: {reply}\nC: TURN")

    def test_a_part_that_is_refused(self) -> None:
        """The request for mail comes all the same."""
        exchange = self.asking()
        exchange.talk(f"C: XMAILBOXES CHECK {digest_of(LIST)}\nS: 250 SEND")
        exchange.talk(f"C: XMAILBOXES PART {PARTS[0]}\nS: 552 5.3.4 too long\nC: TURN")

    def test_nothing_to_tell(self) -> None:
        """Neither without a list, nor to a peer that wants none."""
        self.asking(b"").talk("C: TURN")
        self.asking(keywords="250 HELP").talk("C: TURN")
