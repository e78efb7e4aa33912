"""The office opens what its relay has sealed."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import IPostmaster, ISealOpener, ISealOpening, NotOpened
from mta.mail import Agent, Hop
from mta.sealing.agefile import sealed
from mta.sealing.keys import PrivateKey
from mta.sealing.opener import SealOpener, key_rings
from mta.session import UNKNOWN_ORIGIN, Origin
from mta.settings import DAY, Peer

KEY = PrivateKey.new()


@implementer(IPostmaster)
class Told(list[tuple[str, str]]):
    """What the postmaster was told."""

    async def tell(self, subject: str, text: str) -> None:
        """See `IPostmaster.tell`."""
        self.append((subject, text))


class OpenerTests(SynchronousTestCase):
    """Messages, and what can't be opened."""

    def setUp(self) -> None:
        self.told, self.seconds = Told(), 0.0
        self.opener = SealOpener({"provider": [KEY]}, self.told, lambda: self.seconds)

    def test_interfaces(self) -> None:
        """They are what the receiver needs."""
        self.assertTrue(verifyObject(ISealOpener, self.opener))
        self.assertTrue(verifyObject(ISealOpening, self.opener.opening("provider", 10)))
        self.assertTrue(self.opener.has_key("provider"))
        self.assertFalse(self.opener.has_key("other"))

    @given(st.binary(max_size=50), st.binary(max_size=200), st.integers(1, 300))
    def test_pieces(self, header: bytes, body: bytes, cut: int) -> None:
        """Header section and body are sealed apart, and may come in any cut."""
        section = sealed(header, [KEY.public])
        octets = section + sealed(body, [KEY.public])
        opening = SealOpener({"p": [KEY]}, Told()).opening("p", len(section))
        found = [opening.add(octets[start : start + cut]) for start in range(0, len(octets), cut)]
        self.assertEqual(b"".join(found) + opening.end(), header + body)

    def test_cut(self) -> None:
        """A message that is cut off anywhere is not opened."""
        section = sealed(b"Subject: x\r\n\r\n", [KEY.public])
        octets = section + sealed(b"hello", [KEY.public])
        for end in range(len(octets)):
            opening = self.opener.opening("provider", len(section))
            with self.assertRaises(NotOpened):
                opening.add(octets[:end])
                opening.end()

    def test_header_size(self) -> None:
        """A wrong size of the header section shows."""
        section = sealed(b"Subject: x\r\n\r\n", [KEY.public])
        for size in (0, 1, len(section) - 1, len(section) + 1):
            opening = self.opener.opening("provider", size)
            with self.assertRaises(NotOpened):
                opening.add(section + sealed(b"hello", [KEY.public]))
                opening.end()

    def fail_at(self, seconds: float, peer: str, origin: Origin = UNKNOWN_ORIGIN) -> None:
        """A message of that peer could not be opened."""
        self.seconds = seconds
        failing = self.opener.failed(peer, origin, "it is damaged")
        self.successResultOf(Deferred.fromCoroutine(failing))

    def test_the_postmaster_is_told(self) -> None:
        """Once a day for each peer, with the id that the message has there."""
        self.fail_at(5.0, "provider", Origin(told_id="1K19"))
        self.fail_at(6.0, "provider")
        self.fail_at(7.0, "other")
        self.fail_at(5.0 + DAY, "provider")
        self.assertEqual(
            [subject for subject, _ in self.told],
            [
                f"sealed mail of {peer} can't be opened"
                for peer in ("provider", "other", "provider")
            ],
        )
        self.assertIn("1K19", self.told[0][1])
        self.assertIn("it is damaged", self.told[0][1])

    def test_from_the_configuration(self) -> None:
        """Keys are those of peers that we dial."""
        path = Path(self.mktemp())
        path.write_text(KEY.text)
        connect = Hop(Agent.SMTP, "provider.example")
        peers = [Peer("up", connect=connect, seal=str(path)), Peer("down", seal="x"), Peer("other")]
        self.assertEqual(key_rings(peers), {"up": [KEY]})
