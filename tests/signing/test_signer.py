"""The signing of what leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThreadPool
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mta.interfaces import SigningFailed
from mta.mail import Agent, Body, Hop, Mailbox
from mta.queued import Delivery, IContent
from mta.session import LOCAL_ADDRESS, NOTICE_ORIGIN, Origin
from mta.settings import DKIMKey, Domain, Peer, Relay, Settings
from mta.signing.key_ring import KeyRing
from mta.signing.origins import Origins
from mta.signing.shared_results import SharedResults
from mta.signing.signer import MAX_AGE, MAX_AT_ONCE, Signer
from mta.smtp.header import MAX_HEADER
from mta.testing import ALICE, FakeContent, ImmediateThreads, delivery
from tests.authentication.dkim_cases import ED25519_KEY, NOW, RSA_KEY, DKIMCase

HOP = Hop(Agent.MX, "partner.example")
USER = Origin("203.0.113.5", service="submission", user="alice")
CONTENT = b"From: Alice <alice@example.com>\r\nSubject: x\r\n\r\nHello\r\n"


async def read(content: IContent) -> bytes:
    """All octets of content."""
    return b"".join([piece async for piece in content.pieces()])


class CountedContent(FakeContent):
    """Content that counts how often its body is read, and waits for `gate`."""

    def __init__(self, *pieces: bytes, gate: Deferred[None] | None = None) -> None:
        super().__init__(*pieces)
        self.reads = 0
        self._gate = gate

    async def _counted(self) -> AsyncIterator[bytes]:
        self.reads += 1
        if self._gate is not None:
            await self._gate
        async for piece in super().body():
            yield piece

    def body(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        return self._counted()


class SignerCase(DKIMCase):
    """A signer with the keys of example.com, in files."""

    lifetime = 0.0

    def setUp(self) -> None:
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        self.files = {"rsa": folder / "rsa.pem", "ed": folder / "ed.pem"}
        for name, key in (("rsa", RSA_KEY), ("ed", ED25519_KEY)):
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            self.files[name].write_bytes(pem)
        keys = tuple(DKIMKey(name, file) for name, file in self.files.items())
        hold = Hop(Agent.HOLD, "office")
        settings = Settings(
            "mail.example.com",
            domains={"example.com": Domain("example.com", hold, dkim=keys)},
            relay=Relay(networks=(ip_network("192.0.2.0/24"),)),
            peers={"office": Peer("office", user="Office"), "other": Peer("other")},
        )
        self.clock = Clock()
        self.threads = ImmediateThreads()
        in_thread = partial(deferToThreadPool, self.threads, self.threads)
        ring = KeyRing({"example.com": keys}, in_thread, self.clock)
        self.signer = Signer(
            Origins(settings), ring, in_thread, self.clock, self.now, self.lifetime
        )

    def now(self) -> float:
        """The time of day."""
        return NOW + self.clock.seconds()

    def begin(
        self,
        content: bytes | IContent = CONTENT,
        *,
        origin: Origin = USER,
        id: str = "A1",
        conversion: Body | None = None,
        forwarder: Mailbox | None = None,
    ) -> Deferred[IContent]:
        """Sign the content of a delivery."""
        made: Delivery = delivery(HOP, id, content)
        targets = tuple(replace(each, forwarder=forwarder) for each in made.targets)
        message = replace(made.message, origin=origin)
        made = replace(made, message=message, targets=targets)
        return Deferred.fromCoroutine(self.signer.signed(made, message.content, conversion))

    def sign(self, content: bytes | IContent = CONTENT, **options: Any) -> bytes:
        """The octets that leave."""
        signed = self.successResultOf(self.begin(content, **options))
        octets = self.successResultOf(Deferred.fromCoroutine(read(signed)))
        self.assertEqual((signed.size, signed.is_ascii), (len(octets), octets.isascii()))
        return octets

    def assert_signed(self, octets: bytes) -> None:
        """Both signatures are there, and right."""
        self.assertEqual(self.words(octets, now=self.now()), ["pass", "pass"])

    def assert_left_alone(self, content: bytes = CONTENT, **options: Any) -> None:
        """The content leaves as it is."""
        self.assertEqual(self.sign(content, **options), content)


class SigningTests(SignerCase):
    """What a signer makes of content."""

    def test_signatures_are_on_top(self) -> None:
        """One of each key, in whatever pieces the content is read."""
        for content in (
            CONTENT,
            CONTENT.replace(b"Hello", "Grüße".encode()),
            b"From: alice@example.com\r\n\r\n",
            CONTENT + b"x  y \t\r\n" * 200_000,
        ):
            pieces = [content[start : start + 50_001] for start in range(0, len(content), 50_001)]
            octets = self.sign(FakeContent(*pieces), id=str(len(content)))
            self.assertTrue(octets.endswith(content))
            self.assert_signed(octets)

    def test_large_bodies_are_not_kept(self) -> None:
        """Each piece is hashed in a thread as it comes."""
        pieces = [b"x" * 1000 + b"\r\n"] * (MAX_AT_ONCE // 1000)
        self.assert_signed(self.sign(FakeContent(CONTENT, *pieces)))
        self.assertEqual(self.threads.calls.count("feed"), len(pieces) + 1)
        self.threads.calls.clear()
        self.sign(id="A2")
        self.assertEqual(self.threads.calls, ["_sign"])  # the keys are there

    def test_each_form_is_signed_once(self) -> None:
        """To however many hops it goes, and while it is signed for the first one."""
        gate: Deferred[None] = Deferred()
        content = CountedContent(CONTENT, gate=gate)
        begun = [self.begin(content) for _ in range(50)]
        self.assertNoResult(begun[0])
        begun[0].cancel()  # its connection is lost
        self.failureResultOf(begun[0])
        gate.callback(None)
        signed = {
            self.successResultOf(Deferred.fromCoroutine(read(self.successResultOf(each))))
            for each in begun[1:]
        }
        self.assertEqual((len(signed), content.reads), (1, 1))
        self.sign(content)
        self.assertEqual(content.reads, 1)
        self.sign(content, conversion=Body.SEVEN_BIT)
        self.sign(content, id="A2")
        self.assertEqual(content.reads, 3)
        self.clock.advance(MAX_AGE + 1)
        self.assert_signed(self.sign(content))
        self.assertEqual(content.reads, 4)

    def test_content_that_can_not_be_read(self) -> None:
        """It is tried anew by the next attempt."""
        broken = FakeContent(CONTENT, failure=OSError("gone"))
        self.failureResultOf(self.begin(broken), OSError)
        self.assert_signed(self.sign())

    def test_a_header_section_beyond_the_bound(self) -> None:
        """There may be fields that a signature should cover."""
        long = b"X: " + b"y" * MAX_HEADER + b"\r\n"
        for content in (CONTENT.replace(b"Subject", long + b"Subject"), long + CONTENT):
            failed = self.failureResultOf(self.begin(content), SigningFailed).value
            self.assertTrue(failed.reply.is_permanent)
        elsewhere = CONTENT.replace(b"example.com", b"partner.example")
        self.assert_left_alone(elsewhere.replace(b"Subject", long + b"Subject"))


class KeyTests(SignerCase):
    """The keys that sign."""

    def test_the_author_decides(self) -> None:
        """From: in a domain with keys, or below one; the first author with one of them."""
        for author in (
            b"alice@example.com",
            b"Alice <alice@EXAMPLE.com>",
            b"a@list.example.com",
            b"x@partner.example, alice@example.com",
        ):
            self.assert_signed(self.sign(b"From: " + author + b"\r\n\r\n", id=author.decode()))
        for author in (b"alice@partner.example", b"alice@notexample.com", b"alice@com", b"alice"):
            self.assert_left_alone(b"From: " + author + b"\r\n\r\n")
        self.assert_left_alone(b"Sender: alice@example.com\r\n\r\n")

    def test_a_key_that_can_not_be_read(self) -> None:
        """The mail waits, and the log says why, once a minute; then it is tried anew."""
        pem = self.files["ed"].read_bytes()
        self.files["ed"].unlink()
        with capturedLogs() as logged:
            for _ in range(2):
                failed = self.failureResultOf(self.begin(), SigningFailed).value
                self.assertEqual(
                    str(failed.reply), "451 4.7.5 The DKIM key ed of example.com can't be used"
                )
        (event,) = logged
        self.assertIn(str(self.files["ed"]), event["fault"])
        self.assert_left_alone(CONTENT.replace(b"example.com", b"partner.example"))
        self.files["ed"].write_bytes(pem)
        self.assert_signed(self.sign())
        self.files["ed"].unlink()  # it is kept in memory
        self.assert_signed(self.sign(id="A2"))


class OriginTests(SignerCase):
    """The mail that is ours to sign."""

    def test_ours(self) -> None:
        """Users, networks, programs of this host, and our notices."""
        for number, origin in enumerate(
            (
                USER,
                USER.without_client(),
                Origin("192.0.2.1", service="smtp"),
                Origin("::ffff:192.0.2.1", service="smtp"),
                Origin("198.51.100.1", service="smtp", user="alice"),
                Origin(LOCAL_ADDRESS, service="sendmail", user="1000"),
                Origin(LOCAL_ADDRESS, service="maildrop", user="1000"),
                NOTICE_ORIGIN,
            )
        ):
            self.assert_signed(self.sign(origin=origin, id=str(number)))

    def test_from_elsewhere(self) -> None:
        """Whoever wrote it: our name in From: proves nothing."""
        for origin in (
            Origin(),
            Origin("198.51.100.1", service="smtp"),
            Origin("unknown", service="smtp"),
            Origin("2001:db8::1", service="smtp"),
            Origin("192.0.2.1", service="lmtp"),
            Origin(LOCAL_ADDRESS, service="lmtp"),
            Origin("192.0.2.1", service="smtp", turned_peer="office"),
        ):
            self.assert_left_alone(origin=origin)

    def test_told_by_others(self) -> None:
        """An origin that was told proves nothing: the server that told it has to be ours."""
        for origin in (
            Origin("192.0.2.1", service="smtp", told_by="198.51.100.1"),
            Origin("127.0.0.1", service="smtp", told_by="192.0.2.2"),
            Origin("192.0.2.1", service="smtp", told_by="192.0.2.1"),
            Origin("192.0.2.1", service="smtp", told_by="198.51.100.1", is_internal_there=True),
            Origin("192.0.2.1", service="smtp", told_by="unix", is_internal_there=True),
        ):
            self.assert_left_alone(origin=origin)
        own = Origin("198.51.100.1", service="smtp", told_by="192.0.2.1", is_internal_there=True)
        self.assert_signed(self.sign(origin=own))

    def test_forwarded_mail(self) -> None:
        """It is signed where AUTH proved who wrote it; a program may pass on anything."""
        self.assert_signed(self.sign(forwarder=ALICE))
        for origin in (
            Origin("192.0.2.1", service="smtp"),
            Origin(LOCAL_ADDRESS, service="sendmail", user="1000"),
            Origin("198.51.100.1", service="smtp"),
        ):
            self.assert_left_alone(origin=origin, forwarder=ALICE)

    def test_what_a_peer_hands_in(self) -> None:
        """It has its own signatures, or gets ours; what it forwards gets none."""
        peer = Origin("198.51.100.1", service="smtp", user="office")
        self.assert_signed(self.sign(origin=peer))
        signed = self.sign(id="A2")
        self.assert_left_alone(signed, origin=peer)
        other = signed.replace(b"d=example.com", b"d=example.org")
        self.assertNotEqual(
            self.sign(b"DKIM-Signature: ?\r\n" + other, origin=peer, id="A3"), other
        )
        self.assert_left_alone(b"Delivered-To: bob@example.com\r\n" + CONTENT, origin=peer)


class SharedResultTests(SynchronousTestCase):
    """Results that are made once."""

    def test_bounds(self) -> None:
        """The oldest that was not asked for makes room."""
        shared: SharedResults[int, int] = SharedResults(Clock(), 2, 10.0)
        made = []

        async def make(number: int) -> int:
            made.append(number)
            return -number

        for number in (1, 2, 1, 3, 1, 2):
            result = Deferred.fromCoroutine(shared.get(number, partial(make, number)))
            self.assertEqual(self.successResultOf(result), -number)
        self.assertEqual(made, [1, 2, 3, 2])


class LifetimeTests(SignerCase):
    """``signature_lifetime``."""

    lifetime = 7 * 86400.0

    def test_signatures_expire(self) -> None:
        """Each names the second in which it was made, and that in which it expires."""
        signed = self.sign()
        self.assertEqual(signed.count(b"t=%d; x=%d;" % (NOW, NOW + 604800)), 2, signed)
