"""Sealed mail, as the sender and the receiver see it."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Body, Envelope, MailArgument, Mailbox, Recipient, Reply, SealedForm
from mta.queued import Delivery
from mta.session import TLSInfo
from mta.smtp import replies
from mta.smtp.errors import Refusal, UnsendableMessage
from mta.smtp.extensions import Extensions
from mta.smtp.fit import Capabilities, Form, envelope_commands, fit
from mta.smtp.sealed_form import MAX_OVERHEAD, inner, least_content, parameter
from mta.testing import FakeSigner, delivery

SEALED = b"age...\r\n\r\n\x00\xff"
ALL = ("PIPELINING", "CHUNKING", "BINARYMIME", "XSEALED", "SMTPUTF8", "SIZE 200000")
SECURED = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")


def capabilities(*keywords: str, **more: bool) -> Capabilities:
    """What a peer with these keywords can take."""
    return Capabilities(
        Extensions(Reply(250, "", ("peer", *keywords))),
        lmtp=more.pop("lmtp", False),
        keeps_tls=False,
        **more,
    )


class FitTests(SynchronousTestCase):
    """What a peer is sent of a message that is sealed."""

    def sealed(self, content: bytes = SEALED, **more: object) -> Delivery:
        """A sealed message on its way to the peer."""
        envelope = Envelope(
            Mailbox("alice", "a.example"),
            (Recipient(Mailbox("bob", "office.example")),),
            Body.EIGHT_BIT,
            sealed=True,
            **more,  # type: ignore[arg-type]
        )
        return delivery(id="M1", content=content, envelope=envelope)

    def form(self, sent: Delivery, peer: Capabilities, signer: FakeSigner | None = None) -> Form:
        """The form for that peer."""
        return self.successResultOf(Deferred.fromCoroutine(fit(sent, peer, signer)))

    def assert_waits(self, peer: Capabilities, reply: Reply, **more: object) -> None:
        """The message can't go to that peer."""
        fitting = Deferred.fromCoroutine(fit(self.sealed(**more), peer))
        failure = self.failureResultOf(fitting, UnsendableMessage)
        self.assertIs(failure.value.reply, reply)

    def test_as_it_is(self) -> None:
        """The octets go as they are, unsigned, and MAIL tells what is in them."""
        sent, signer = self.sealed(), FakeSigner()
        peer = capabilities(*ALL)
        form = self.form(sent, peer, signer)
        self.assertEqual(
            (form.body, form.sealed, form.content.size),
            (Body.BINARY, SealedForm(10, Body.EIGHT_BIT), len(SEALED)),
        )
        (mail, _) = envelope_commands(sent, [0], form, peer)
        self.assertEqual(
            mail,
            b"MAIL FROM:<alice@a.example> SIZE=12 BODY=BINARYMIME XSEALED=10,8BITMIME\r\n",
        )

    def test_only_to_a_peer_that_opens_it(self) -> None:
        """It waits where one of the extensions is missing, and where commands go one by one."""
        for missing in ("PIPELINING", "CHUNKING", "BINARYMIME", "XSEALED"):
            offered = [each for each in ALL if each != missing]
            self.assert_waits(capabilities(*offered), replies.SEALED)
        self.assert_waits(capabilities(*ALL, lmtp=True), replies.SEALED)
        self.assert_waits(capabilities(*ALL, one_at_a_time=True), replies.SEALED)
        self.assertTrue(replies.SEALED.is_transient)

    def test_smtputf8(self) -> None:
        """The header section can't be looked into: what came with SMTPUTF8 needs it."""
        without = [each for each in ALL if each != "SMTPUTF8"]
        self.assert_waits(capabilities(*without), replies.NO_SMTPUTF8, smtputf8=True)
        self.assertIsNotNone(self.form(self.sealed(smtputf8=True), capabilities(*ALL)).sealed)

    def test_size(self) -> None:
        """What is only too big because it is sealed is sent; the peer counts what is inside."""
        peer = capabilities(*ALL)
        self.form(self.sealed(SEALED + bytes(200_050)), peer)
        self.assert_waits(peer, replies.TOO_BIG_FOR_PEER, content=SEALED + bytes(300_000))


class FormTests(SynchronousTestCase):
    """The parameter of MAIL."""

    def test_parameter(self) -> None:
        """It is written as it is read."""
        self.assertEqual(parameter(SealedForm(812, Body.BINARY)), "XSEALED=812,BINARYMIME")

    def test_inside(self) -> None:
        """What was sealed counts from there on."""
        form = SealedForm(812, Body.SEVEN_BIT)
        argument = MailArgument(Mailbox("a", "b.example"), 100_000, Body.BINARY, sealed=form)
        found = inner(argument)
        self.assertEqual((found.body, found.size), (Body.SEVEN_BIT, least_content(100_000)))
        unsized = MailArgument(Mailbox("a", "b.example"), None, Body.BINARY, sealed=form)
        self.assertIsNone(inner(unsized).size)
        with self.assertRaises(Refusal):
            inner(MailArgument(Mailbox("a", "b.example"), None, Body.EIGHT_BIT, sealed=form))

    def test_least_content(self) -> None:
        """It is never more than what may be inside, and not much less."""
        self.assertEqual(least_content(10), 0)
        size = 50 * 2**20
        self.assertLess(least_content(size + 400 + size // 65536 * 16), size)
        self.assertGreater(least_content(size), size * 0.99 - MAX_OVERHEAD)
