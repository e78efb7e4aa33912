"""Reverse-paths of forwarded mail."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Mailbox
from mta.settings import DAY
from mta.smtp.grammar import parse_mailbox
from mta.smtp.srs import MAX_AGE, MAX_AHEAD, SenderRewriting

NOW = 1_700_000_000.0
SENDER = Mailbox("carol", "partner.example")
NAMES = st.text(st.sampled_from('abcXYZ019.+-_=@ "\\é'), min_size=1, max_size=30)


class SenderRewritingTests(SynchronousTestCase):
    """There and back."""

    def setUp(self) -> None:
        self.srs = SenderRewriting(b"k" * 32)
        self.other = SenderRewriting(b"o" * 32)

    def test_form(self) -> None:
        """The original address is in the rewritten one, signed and dated."""
        rewritten = self.srs.rewritten(SENDER, "example.com", NOW)
        self.assertRegex(
            str(rewritten), "^SRS0=[A-Z2-7]{8}=[A-Z2-7]{2}=partner.example=carol@example.com$"
        )

    @given(NAMES)
    def test_there_and_back(self, name: str) -> None:
        """A bounce finds the sender, whatever servers on the way do to the case."""
        rewritten = self.srs.rewritten(Mailbox(name, "partner.example"), "example.com", NOW)
        self.assertEqual(
            Mailbox(name, "partner.example"), self.srs.original(rewritten.local_part, NOW)
        )
        lower = self.srs.original(rewritten.local_part.lower(), NOW)
        assert lower is not None
        self.assertEqual(name.lower(), lower.local_part)

    def test_time(self) -> None:
        """A bounce may take three weeks, and no longer."""
        local_part = self.srs.rewritten(SENDER, "example.com", NOW).local_part
        self.assertEqual(SENDER, self.srs.original(local_part, NOW + MAX_AGE * DAY))
        self.assertIsNone(self.srs.original(local_part, NOW + (MAX_AGE + 1) * DAY))

    def test_clock_set_back(self) -> None:
        """By a day: bounces to what was forwarded before that find their way."""
        local_part = self.srs.rewritten(SENDER, "example.com", NOW).local_part
        for back in (MAX_AHEAD * DAY, 1.0, 0.0):
            self.assertEqual(SENDER, self.srs.original(local_part, NOW - back))
        self.assertIsNone(self.srs.original(local_part, NOW - (MAX_AHEAD + 1) * DAY))

    def test_no_local_part(self) -> None:
        """One in quotes may be empty."""
        sender = Mailbox("", "b.example")
        rewritten = self.srs.rewritten(sender, "example.com", NOW)
        self.assertEqual(self.srs.original(rewritten.local_part, NOW), sender)

    def test_letters_that_others_stand_for(self) -> None:
        """A Kelvin sign, which is a small K to some, is refused wherever it stands."""
        for day in range(1024):
            text = self.srs.rewritten(SENDER, "example.com", day * DAY).local_part
            for other in (text.replace("K", "\N{KELVIN SIGN}"), "\N{LATIN SMALL LETTER LONG S}RS0"):
                if other != text:
                    self.assertIsNone(self.srs.original(other, day * DAY))

    def test_forged(self) -> None:
        """Nobody else can make us send anything anywhere."""
        forged = self.other.rewritten(SENDER, "example.com", NOW).local_part
        self.assertIsNone(self.srs.original(forged, NOW))
        ours = self.srs.rewritten(SENDER, "example.com", NOW).local_part
        self.assertIsNone(self.srs.original(ours.replace("carol", "dave"), NOW))
        for text in ("carol", "SRS0=x", "SRS0=A=AA=b.example=", "SRS1=A=b.example=x", "SRS2=x"):
            self.assertIsNone(self.srs.original(text, NOW))

    def test_chain(self) -> None:
        """What others rewrote before is not nested: a bounce goes to the first of them."""
        first = self.other.rewritten(SENDER, "first.example", NOW)
        second = self.srs.rewritten(first, "second.example", NOW)
        self.assertEqual(first, self.srs.original(second.local_part, NOW))
        third = SenderRewriting(b"t" * 32)
        last = third.rewritten(second, "third.example", NOW)
        self.assertEqual(first, third.original(last.local_part, NOW))
        self.assertIsNone(self.srs.original(last.local_part, NOW))

    def test_long(self) -> None:
        """A rewritten address may be longer than a local part otherwise is."""
        long = Mailbox("a" * 60, "partner.example")
        rewritten = self.srs.rewritten(long, "example.com", NOW)
        self.assertEqual(rewritten, parse_mailbox(str(rewritten)))

    def test_no_secret_is_shown(self) -> None:
        """The key is in no log."""
        self.assertNotIn("kkk", repr(self.srs))
