"""The inspector that authenticates senders."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_network
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThreadPool
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.authentication.decision import Action, Decision
from mta.authentication.dkim import (
    SIGNED_BODY,
    BodyHasher,
    SigningKey,
    Verification,
    signature_fields,
)
from mta.authentication.judged import Judged
from mta.authentication.results import parse
from mta.dns_answer import Answer, RecordType
from mta.inspectors.authentication import AuthenticationInspector
from mta.inspectors.authentication_config import AuthenticationConfig
from mta.inspectors.interfaces import IJudgedMail
from mta.inspectors.judging import HIDDEN_RESULTS, MAX_AT_ONCE, MAX_SECONDS
from mta.inspectors.sender_policy import SenderPolicies
from mta.inspectors.verifications import MAX_BATCH, Verifications
from mta.inspectors.verifications import MAX_SECONDS as MAX_BATCH_SECONDS
from mta.interfaces import IAuthenticationMeter, IInspector, IMessageInspector, ISessionInspector
from mta.mail import NULL_PATH, Envelope, MailArgument, Mailbox
from mta.session import UNKNOWN_ORIGIN, Session, Testimony
from mta.settings import Authentication, Judgement, OnDNSError, Service
from mta.smtp import header
from mta.smtp.errors import Refusal
from mta.smtp.field_edits import EditedSection
from mta.testing import FakeAccessPolicy, ImmediateThreads
from mta.verdict import Verdict
from tests.authentication.zones import TextZone

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
NOW = 1_700_000_000.0
ADDRESS = "192.0.2.7"
BODY = b"Hello\r\n"
FORGED = (
    b"Authentication-Results: MTA.example; dmarc=pass\r\n"
    b"Authentication-Results: other.example; dmarc=fail policy.dmarc=reject header.from=x.y\r\n"
    b"X-Spam: No\r\n"
)


def key_record() -> str:
    """The record of `KEY`."""
    return f"v=DKIM1; k=ed25519; p={b64encode(PUBLIC).decode()}"


RECORDS = {
    "bank.example": "v=spf1 ip4:192.0.2.7 -all",
    "_dmarc.bank.example": "v=DMARC1; p=reject",
    "a._domainkey.bank.example": key_record(),
    "evil.example": "v=spf1 ip4:192.0.2.7 -all",
}


class SlowZone(TextZone):
    """A zone in which some names are `slow`: they are answered when the test says so."""

    def __init__(self, records: dict[str, str | list[str]], down: frozenset[str]) -> None:
        super().__init__(records, down)
        self.slow: dict[str, list[Deferred[None]]] = {}

    async def query(self, name: str, kind: RecordType) -> Answer:
        """Wait for the name, where it is slow."""
        if name in self.slow:
            self.queries.append(name)
            waiter: Deferred[None] = Deferred()
            self.slow[name].append(waiter)
            await waiter
        return await super().query(name, kind)


@implementer(IJudgedMail)
@dataclass
class Heard:
    """What was told of messages."""

    found: list[tuple[Judged, Decision]]

    def judged(self, judged: Judged, decision: Decision) -> None:
        """Remember it."""
        self.found.append((judged, decision))


@implementer(IAuthenticationMeter)
@dataclass
class Meter:
    """What was counted."""

    found: list[tuple[str, ...]]

    def judged(self, spf: str, dkim: str, dmarc: str, action: str) -> None:
        """Remember it."""
        self.found.append((spf, dkim, dmarc, action))


def signed(section: bytes, body: bytes, domain: str = "bank.example") -> bytes:
    """The header section with a signature."""
    hasher = BodyHasher({SIGNED_BODY})
    hasher.feed(body)
    hasher.end()
    keys = [SigningKey(domain, "a", KEY)]
    return signature_fields(section, hasher.digest(SIGNED_BODY), keys, NOW) + section


class AuthenticationTestCase(SynchronousTestCase):
    """One inspector, with the DNS as a table."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.dns = SlowZone(dict(RECORDS), frozenset())
        self.threads = ImmediateThreads()
        self.heard = Heard([])
        self.meter = Meter([])
        self.session = Session(Service.SMTP, ADDRESS, None, hello="client.evil.example")
        self.peers = {"office": "relay.example"}

    def begin(self, mail_from: str = "ceo@bank.example", **settings: Any) -> IMessageInspector:
        """MAIL comes, in a session of its own."""
        return self.mail(self.begin_session(**settings), mail_from)

    def begin_session(self, **settings: Any) -> ISessionInspector:
        """A client connects."""
        config = AuthenticationConfig(
            Authentication(**settings),
            "mta.example",
            self.dns,
            self.clock,
            partial(deferToThreadPool, self.threads, self.threads),
            lambda: NOW,
            self.meter,
            self.peers,
            [self.heard],
        )
        self.senders = SenderPolicies(self.dns, "mta.example", self.clock, lambda: NOW)
        inspector = AuthenticationInspector(config, FakeAccessPolicy(), self.senders)
        self.assertTrue(verifyObject(IInspector, inspector))
        session = inspector.session(self.session)
        self.assertTrue(verifyObject(ISessionInspector, session))
        return session

    def mail(self, session: ISessionInspector, mail_from: str) -> IMessageInspector:
        """MAIL comes."""
        local_part, _, domain = mail_from.partition("@")
        argument = MailArgument(Mailbox(local_part, domain) if mail_from else NULL_PATH)
        message = self.now(session.message("A1", argument, UNKNOWN_ORIGIN))
        self.assertTrue(verifyObject(IMessageInspector, message))
        return message

    def now(self, coroutine: Any) -> Any:
        """The result of a coroutine that does not wait."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def content(self, message: IMessageInspector, section: bytes, body: bytes = BODY) -> Any:
        """The content comes; returns the Deferred of the verdict."""
        self.section = section
        self.now(message.header(Envelope(NULL_PATH, ()), section))
        for start in range(0, len(body), 70_000):
            self.now(message.body(body[start : start + 70_000]))
        ended = Deferred.fromCoroutine(message.end(section))
        self.clock.advance(0)  # signatures are verified
        return ended

    def judge(
        self, section: bytes, mail_from: str = "ceo@bank.example", body: bytes = BODY, **more: Any
    ) -> Verdict:
        """The verdict on a message."""
        verdict: Verdict = self.successResultOf(
            self.content(self.begin(mail_from, **more), section, body)
        )
        return verdict

    def refusal(self, section: bytes, mail_from: str = "x@evil.example", **more: Any) -> str:
        """The beginning of the reply to a message."""
        ended = self.content(self.begin(mail_from, **more), section)
        reply = self.failureResultOf(ended, Refusal).value.reply
        return f"{reply.code} {reply.enhanced}"

    def kept(self, verdict: Verdict) -> bytes:
        """The header section as it is kept."""
        edited = EditedSection(b"", self.section)
        edited.apply(verdict.edits)
        return edited.octets

    def results(self, verdict: Verdict) -> dict[str, str]:
        """The results in our field, which is on top."""
        first = header.fields(self.kept(verdict))[0]
        self.assertEqual(header.name(first), b"authentication-results")
        found = parse(header.value(first))
        self.assertEqual(found.authserv_id, "mta.example")
        return {each.method: each.result for each in found.results}


FROM_BANK = b"From: CEO <ceo@bank.example>\r\nSubject: x\r\n\r\n"


class JudgingTests(AuthenticationTestCase):
    """Mail from outside."""

    def test_all_is_well(self) -> None:
        """SPF, DKIM and DMARC pass, and the field says so."""
        verdict = self.judge(signed(FROM_BANK, BODY))
        self.assertEqual(self.results(verdict), {"spf": "pass", "dkim": "pass", "dmarc": "pass"})
        self.assertEqual(verdict.junk, "")

    def test_each_alone(self) -> None:
        """SPF alone, or a signature alone, is enough."""
        self.assertEqual(self.results(self.judge(FROM_BANK))["dmarc"], "pass")
        section = signed(FROM_BANK, BODY)
        self.assertEqual(self.results(self.judge(section, "x@evil.example"))["dmarc"], "pass")
        off = self.results(self.judge(section, spf=Judgement.OFF))
        self.assertEqual(off, {"dkim": "pass", "dmarc": "pass"})

    def test_forged(self) -> None:
        """It is junk, or refused by choice, or only recorded."""
        verdict = self.judge(FROM_BANK, "x@evil.example")
        self.assertEqual(self.results(verdict), {"spf": "pass", "dkim": "none", "dmarc": "fail"})
        self.assertIn("bank.example", verdict.junk)
        self.assertEqual(self.refusal(FROM_BANK, dmarc=Judgement.REJECT), "550 5.7.26")
        self.assertEqual(self.judge(FROM_BANK, "x@evil.example", dmarc=Judgement.RECORD).junk, "")
        off = self.judge(FROM_BANK, "x@evil.example", dmarc=Judgement.OFF)
        self.assertEqual(self.results(off), {"spf": "pass", "dkim": "none"})

    def test_the_same_sender_again(self) -> None:
        """SPF is asked for once a minute in a session, and for each sender and HELO."""
        config_session = self.begin_session()
        for sender, hello, seconds, asked in (
            ("a@bank.example", "h.example", 0, True),
            ("a@bank.example", "h.example", 59, False),
            ("a@bank.example", "other.example", 0, True),
            ("b@bank.example", "other.example", 0, True),
            ("b@bank.example", "other.example", 60, True),
        ):
            self.clock.advance(seconds)
            self.session.hello = hello
            self.dns.queries.clear()
            message = self.mail(config_session, sender)
            verdict = self.successResultOf(self.content(message, FROM_BANK))
            self.assertEqual(self.results(verdict)["spf"], "pass")
            self.assertEqual("bank.example" in self.dns.queries, asked, (sender, hello, seconds))

    def test_a_changed_body(self) -> None:
        """The signature does not count."""
        verdict = self.judge(signed(FROM_BANK, BODY), "x@evil.example", body=BODY + b"more\r\n")
        self.assertEqual(self.results(verdict)["dkim"], "fail")
        self.assertTrue(verdict.junk)

    def test_a_null_sender(self) -> None:
        """DMARC goes by signatures alone: SPF has looked at HELO."""
        self.session.hello = "bank.example"
        verdict = self.judge(FROM_BANK, "")
        self.assertEqual(self.results(verdict), {"spf": "pass", "dkim": "none", "dmarc": "fail"})
        verdict = self.judge(signed(FROM_BANK, BODY), "")
        self.assertEqual(self.results(verdict)["dmarc"], "pass")
        self.assertIn(b"smtp.helo=bank.example", self.kept(verdict))

    def test_fields_that_came(self) -> None:
        """Those that claim our name go, and X-Spam: of strangers; others stay."""
        verdict = self.judge(FORGED + FROM_BANK)
        _, rest = self.kept(verdict).split(b"\r\nAuthentication-Results: other", 1)
        self.assertEqual(
            rest, FORGED.split(b"other")[1].replace(b"X-Spam: No\r\n", b"") + FROM_BANK
        )
        self.assertEqual(self.results(verdict)["dmarc"], "pass")

    def test_hidden_results(self) -> None:
        """What claims our name, and can't be removed, is refused."""
        message = self.begin()
        section = b"From: a@bank.example\r\nno field\r\n" + FORGED + b"\r\n"
        looking = Deferred.fromCoroutine(message.header(Envelope(NULL_PATH, ()), section))
        self.assertEqual(self.failureResultOf(looking, Refusal).value.reply.code, 550)

    def test_nothing_is_on(self) -> None:
        """The field says that there is nothing."""
        off = Judgement.OFF
        verdict = self.judge(FROM_BANK, spf=off, dkim=False, dmarc=off)
        self.assertTrue(self.kept(verdict).startswith(b"Authentication-Results: mta.example; none"))

    def test_another_name(self) -> None:
        """The field may have another name than the host, and only that is removed."""
        verdict = self.judge(FORGED + FROM_BANK, authserv_id="other.example")
        self.assertIn(b"MTA.example; dmarc=pass", self.kept(verdict))
        self.assertNotIn(b"policy.dmarc=reject", self.kept(verdict))

    def test_authors(self) -> None:
        """Several From: fields are refused; several authors are judged by the worst."""
        two = b"From: a@evil.example\r\n" + FROM_BANK
        self.assertEqual(self.refusal(two), "550 5.7.1")
        recorded = self.results(self.judge(two, dmarc=Judgement.RECORD))
        self.assertEqual(recorded["dmarc"], "permerror")
        both = b"From: a@evil.example, b@bank.example\r\n\r\n"
        self.assertTrue(self.judge(both, "x@evil.example").junk)
        nobody = self.judge(b"Subject: x\r\n\r\n", "x@evil.example")
        self.assertEqual((self.results(nobody)["dmarc"], nobody.junk), ("none", ""))

    def test_forwarders(self) -> None:
        """By network or confirmed name, exact or below a domain; the field tells of it."""
        for place, name, is_trusted in (
            (ip_network("192.0.2.0/28"), "", True),
            (ip_network("198.51.100.0/24"), "", False),
            (ip_network("2001:db8::/32"), "", False),
            ("mx.alumni.example", "mx.alumni.example", True),
            ("mx.alumni.example", "MX.Alumni.example.", True),
            ("mx.alumni.example", "a.mx.alumni.example", False),
            (".alumni.example", "a.mx.alumni.example", True),
            (".alumni.example", "alumni.example", False),
            (".alumni.example", "", False),
        ):
            with self.subTest(place=place, name=name):
                self.session.name = name
                self.session.hello = "mx.alumni.example"  # which is not asked
                verdict = self.judge(FROM_BANK, "x@evil.example", trusted_forwarders=(place,))
                self.assertEqual(self.results(verdict)["dmarc"], "fail")
                self.assertEqual(verdict.junk == "", is_trusted)
                told = b'reason="trusted forwarder"' in self.kept(verdict)
                self.assertEqual(told, is_trusted)

    def test_the_log(self) -> None:
        """One line, with the results; the postmaster's other places hear the same."""
        with capturedLogs() as events:
            self.judge(FORGED + FROM_BANK, "x@evil.example")
            self.refusal(FROM_BANK, dmarc=Judgement.REJECT)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "A1 from bank.example: spf=pass dkim=none dmarc=fail action=junk, "
                "1 forged results removed",
                "A1 from bank.example: spf=pass dkim=none dmarc=fail action=reject",
            ],
        )
        self.assertEqual(
            self.meter.found, [("pass", "none", "fail", "junk"), ("pass", "none", "fail", "reject")]
        )
        (judged, decision), (_, other) = self.heard.found
        self.assertEqual((decision.action, other.action), (Action.JUNK, Action.REJECT))
        self.assertEqual(judged.client, ADDRESS)

    def test_reports_of_others(self) -> None:
        """They are not counted, or two hosts would report on reports; a forged one is."""
        report = b"Subject: Report Domain: us.example Submitter: mx.bank.example\r\n" + FROM_BANK
        self.judge(report)
        self.assertEqual([], self.heard.found)
        self.judge(report, "x@evil.example")
        self.assertEqual(1, len(self.heard.found))


class ThreadTests(AuthenticationTestCase):
    """What takes long is not done between other work."""

    def test_small(self) -> None:
        """A small message costs no thread."""
        self.judge(signed(FROM_BANK, BODY))
        self.assertEqual(self.threads.calls, [])

    def test_large(self) -> None:
        """Long pieces, a long header section and many signatures do."""
        body = b"x" * 78 + b"\r\n"
        body *= 2 * MAX_AT_ONCE // len(body)
        verdict = self.judge(signed(FROM_BANK, body), "x@evil.example", body=body)
        self.assertEqual(self.results(verdict)["dkim"], "pass")
        self.assertEqual(self.threads.calls, ["feed"])
        self.judge(FROM_BANK, body=body)  # which nobody signed
        self.assertEqual(self.threads.calls, ["feed"])
        section = b"X: " + b"y" * MAX_AT_ONCE + b"\r\n" + FROM_BANK
        self.judge(section)
        self.assertEqual(self.threads.calls, ["feed", "Verification"])
        for _ in range(3):
            section = signed(section, BODY)
        self.judge(section)
        self.assertEqual(self.threads.calls[2:], ["Verification", "check"])

    def test_together(self) -> None:
        """Messages that are complete are verified some at a time, before any of them goes on."""
        verifications = Verifications(self.clock, partial(deferToThreadPool, None, None))
        seen = []

        class Seen(Verification):
            """Tells when it is checked."""

            def check(self) -> Any:
                seen.append("checked")
                return super().check()

        for _ in range(MAX_BATCH + 1):
            verification = Seen(signed(FROM_BANK, BODY), NOW)
            checking = Deferred.fromCoroutine(verifications.check(verification))
            checking.addCallback(lambda _: seen.append("goes on"))
        self.assertEqual(seen, [])
        self.clock.advance(0)
        batch = ["checked"] * MAX_BATCH + ["goes on"] * MAX_BATCH
        self.assertEqual(seen, [*batch, "checked", "goes on"])

    def test_keys_that_take_long(self) -> None:
        """A batch ends when its time is over, and others work before the next one."""
        clock, seen = Clock(), []
        verifications = Verifications(clock, partial(deferToThreadPool, None, None))

        class Slow(Verification):
            def check(self) -> Any:
                seen.append("checked")
                clock.rightNow += MAX_BATCH_SECONDS
                return super().check()

        for _ in range(2):
            verification = Slow(signed(FROM_BANK, BODY), NOW)
            Deferred.fromCoroutine(verifications.check(verification))
        clock.callLater(0, seen.append, "others")
        clock.advance(0)
        self.assertEqual(seen, ["checked", "others", "checked"])

    def test_a_fault_of_ours(self) -> None:
        """It ends one session, and harms no other message."""
        verifications = Verifications(self.clock, partial(deferToThreadPool, None, None))
        section = signed(FROM_BANK, BODY)
        found = []
        for is_broken in (True, False):
            verification = Verification(section, NOW)
            if is_broken:
                self.patch(verification, "check", lambda: 1 / 0)
            found.append(Deferred.fromCoroutine(verifications.check(verification)))
        self.clock.advance(0)
        self.failureResultOf(found[0], ZeroDivisionError)
        self.assertEqual(len(self.successResultOf(found[1])), 1)

    def test_cancelled(self) -> None:
        """A session that is gone is not told."""
        verifications = Verifications(self.clock, partial(deferToThreadPool, None, None))
        verification = Verification(signed(FROM_BANK, BODY), NOW)
        checking = Deferred.fromCoroutine(verifications.check(verification))
        checking.cancel()
        self.clock.advance(0)
        self.failureResultOf(checking, CancelledError)


class WaitingTests(AuthenticationTestCase):
    """The DNS takes its time, or does not answer."""

    def slow(self, *names: str) -> None:
        """Let these names be slow."""
        for name in names:
            self.dns.slow[name] = []

    def answer(self) -> None:
        """Let all that is waited for be answered."""
        waiting = [waiter for waiters in self.dns.slow.values() for waiter in waiters]
        self.dns.slow.clear()
        for waiter in waiting:
            waiter.callback(None)

    def test_early(self) -> None:
        """SPF is asked for at MAIL, keys and policies at the end of the header section."""
        self.slow("bank.example", "a._domainkey.bank.example", "_dmarc.bank.example")
        message = self.begin()
        self.assertEqual(self.dns.queries, ["bank.example"])
        ended = self.content(message, signed(FROM_BANK, BODY))
        self.assertEqual(
            sorted(self.dns.queries),
            ["_dmarc.bank.example", "a._domainkey.bank.example", "bank.example"],
        )
        self.assertNoResult(ended)
        self.answer()
        self.clock.advance(0)
        found = self.results(self.successResultOf(ended))
        self.assertEqual(found, {"spf": "pass", "dkim": "pass", "dmarc": "pass"})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_answer(self) -> None:
        """After the time it is unknown; the message is taken, or put off by choice."""
        self.slow("evil.example", "_dmarc.bank.example")
        for settings, expected in (
            ({}, None),
            ({"on_dns_error": OnDNSError.DEFER}, "451 4.7.24"),
            ({"on_dns_error": OnDNSError.DEFER, "spf": Judgement.OFF}, "451 4.4.3"),
            ({"on_dns_error": OnDNSError.DEFER, "dmarc": Judgement.RECORD}, None),
        ):
            with self.subTest(settings):
                ended = self.content(self.begin("x@evil.example", **settings), FROM_BANK)
                self.clock.advance(MAX_SECONDS - 0.1)
                self.assertNoResult(ended)
                self.clock.advance(0.1)
                self.clock.advance(0)
                if expected is None:
                    found = self.results(self.successResultOf(ended))
                    self.assertEqual((found["spf"], found["dmarc"]), ("temperror", "temperror"))
                else:
                    reply = self.failureResultOf(ended, Refusal).value.reply
                    self.assertEqual(f"{reply.code} {reply.enhanced}", expected)
                self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_keys_without_answer(self) -> None:
        """They might have vouched for the message: neither pass nor fail."""
        self.slow("a._domainkey.bank.example")
        ended = self.content(self.begin("x@evil.example"), signed(FROM_BANK, BODY))
        self.clock.advance(MAX_SECONDS)
        self.clock.advance(0)
        verdict = self.successResultOf(ended)
        found = self.results(verdict)
        self.assertEqual((found["dkim"], found["dmarc"]), ("temperror", "temperror"))
        self.assertEqual(verdict.junk, "")

    def test_failures(self) -> None:
        """A failure of the name servers is the same, at once."""
        self.dns = SlowZone(dict(RECORDS), frozenset({"_dmarc.bank.example"}))
        verdict = self.judge(FROM_BANK, "x@evil.example")
        self.assertEqual(self.results(verdict)["dmarc"], "temperror")
        self.assertEqual(self.refusal(FROM_BANK, on_dns_error=OnDNSError.DEFER), "451 4.4.3")

    def test_strangers_without_answer(self) -> None:
        """Who forges can't have it put off by name servers of his own that are silent."""
        self.dns = SlowZone(dict(RECORDS), frozenset({"evil.example"}))
        self.assertTrue(self.judge(FROM_BANK, "x@evil.example").junk)

    def test_abort(self) -> None:
        """Look-ups end with the message; what comes then is of no interest."""
        self.slow("bank.example")
        message = self.begin()
        message.abort()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.answer()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_fault_of_ours(self) -> None:
        """It is in the log, and the mail is taken."""
        self.slow("bank.example")
        ended = self.content(self.begin(), FROM_BANK)
        (waiter,) = self.dns.slow["bank.example"]
        waiter.errback(ZeroDivisionError())
        self.assertEqual(self.results(self.successResultOf(ended))["spf"], "temperror")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ExemptTests(AuthenticationTestCase):
    """Mail that is not judged."""

    RELAYED = (
        b"Authentication-Results: relay.example; spf=fail; dmarc=fail policy.dmarc=quarantine\r\n"
        b" header.from=bank.example\r\n" + FORGED + FROM_BANK
    )

    def exempt(self, section: bytes, **settings: Any) -> Verdict:
        """The verdict; nothing was asked."""
        verdict = self.judge(section, "x@evil.example", **settings)
        self.assertEqual(self.dns.queries, [])
        return verdict

    def test_ours(self) -> None:
        """Users, and services for programs, lose only what claims our name."""
        for session in (
            replace(self.session, identity="alice"),
            Session(Service.SUBMISSION, ADDRESS, None, identity="alice"),
            Session(Service.LMTP, ADDRESS, None),
        ):
            self.session = session
            verdict = self.exempt(self.RELAYED)
            self.assertEqual(verdict.junk, "")
            kept = self.kept(verdict)
            self.assertNotIn(b"MTA.example", kept)
            self.assertEqual(kept.count(b"Authentication-Results:"), 2)
            self.assertIn(b"X-Spam: No", kept)

    def test_turned(self) -> None:
        """The relay's results are believed, and only the relay's; nothing is refused."""
        self.session.turned_peer = "office"
        for mode in (Judgement.QUARANTINE, Judgement.REJECT):
            verdict = self.exempt(self.RELAYED, dmarc=mode)
            self.assertIn("bank.example", verdict.junk)
            self.assertIn(b"relay.example; spf=fail", self.kept(verdict))
            self.assertNotIn(b"MTA.example", self.kept(verdict))
        self.assertEqual(self.exempt(self.RELAYED, dmarc=Judgement.RECORD).junk, "")
        self.assertEqual(self.exempt(FORGED + FROM_BANK).junk, "")
        passed = self.RELAYED.replace(b"policy.dmarc=quarantine", b"policy.dmarc=none")
        self.assertEqual(self.exempt(passed).junk, "")

    def test_names_of_the_relay(self) -> None:
        """It may be called by an address: what it says in EHLO is its name, too."""
        self.session.turned_peer, self.peers = "office", {"office": "192.0.2.1"}
        self.assertEqual(self.exempt(self.RELAYED).junk, "")
        self.session.hello = "Relay.example"
        self.assertTrue(self.exempt(self.RELAYED).junk)

    def test_another_peer(self) -> None:
        """One that dials us is not believed, nor one with our name."""
        self.session.turned_peer, self.session.hello = "other", "relay.example"
        self.assertEqual(self.exempt(self.RELAYED).junk, "")
        self.session.hello = "elsewhere.example"
        self.peers = {"other": "mta.example"}
        self.assertEqual(self.exempt(self.RELAYED.replace(b"relay", b"mta")).junk, "")


RELAYED = b"Authentication-Results: relay.example; dmarc=%b header.from=bank.example%b\r\n"


class ToldTests(AuthenticationTestCase):
    """Mail on turned connections whose clients the relay tells."""

    def setUp(self) -> None:
        super().setUp()
        told = Testimony("office", "7Zk", "ESMTP")
        self.session = replace(self.session, turned_peer="office", told=told)

    def test_the_client_is_judged(self) -> None:
        """SPF and DMARC go by the address that was told."""
        self.assertEqual(self.results(self.judge(FROM_BANK))["dmarc"], "pass")
        self.session.client = "198.51.100.9"
        verdict = self.judge(FROM_BANK)
        self.assertEqual(self.results(verdict), {"spf": "fail", "dkim": "none", "dmarc": "fail"})
        self.assertIn("bank.example", verdict.junk)

    def test_never_refused(self) -> None:
        """The relay would have to write to an address that may be forged."""
        self.session.client = "198.51.100.9"
        for more in ({"dmarc": Judgement.REJECT}, {"spf": Judgement.REJECT}):
            verdict = self.judge(FROM_BANK, **more)
            self.assertTrue(verdict.junk, more)
        self.assertIn("From:", self.judge(b"From: a@x.y\r\nFrom: b@x.z\r\n\r\n").junk)

    def test_refused_while_the_sender_waits(self) -> None:
        """The relay passes the refusal on, and writes to no address."""
        self.session.client, self.session.sender_waits = "198.51.100.9", True
        refusal = self.refusal(FROM_BANK, "ceo@bank.example", dmarc=Judgement.REJECT)
        self.assertEqual(refusal, "550 5.7.26")

    def test_the_relay_may_have_more_to_say(self) -> None:
        """Its results are kept; where it failed mail that we can't judge, so do we."""
        failed = RELAYED % (b"fail", b" policy.dmarc=reject") + FROM_BANK
        self.session.client = "unknown"
        self.dns.down = frozenset({"_dmarc.bank.example"})
        verdict = self.judge(failed)
        self.assertEqual(self.results(verdict)["dmarc"], "temperror")
        self.assertIn("the relay found", verdict.junk)
        self.assertIn(RELAYED % (b"fail", b" policy.dmarc=reject"), self.kept(verdict))

    def test_what_the_relay_let_pass(self) -> None:
        """A relay that does not judge leaves fields that were forged: they prove nothing."""
        self.session.client = "198.51.100.9"
        verdict = self.judge(RELAYED % (b"pass", b"") + FROM_BANK)
        self.assertEqual(self.results(verdict)["dmarc"], "fail")
        self.assertTrue(verdict.junk)

    def test_what_we_let_pass(self) -> None:
        """Our own look at the client counts more than that of the relay."""
        verdict = self.judge(RELAYED % (b"fail", b" policy.dmarc=reject") + FROM_BANK)
        self.assertEqual(self.results(verdict)["dmarc"], "pass")
        self.assertEqual(verdict.junk, "")

    def test_an_origin_of_ours(self) -> None:
        """It is judged like any other."""
        for address in ("127.0.0.1", "::1", "10.0.0.1", "unknown"):
            self.session.client = address
            self.assertTrue(self.judge(FROM_BANK, "x@evil.example").junk, address)

    def test_hidden_results(self) -> None:
        """Forged ones that can't be removed are no reason for a notice either."""
        hidden = b"From: a@x.y\r\nno field\r\n" + FORGED + b"\r\n"
        self.assertEqual(self.judge(hidden).junk, HIDDEN_RESULTS.text)

    def test_names_of_clients(self) -> None:
        """The relay's results bear its own name: its client may say that of anyone."""
        self.session = replace(self.session, client="198.51.100.9", hello="mine.example")
        claimed = RELAYED % (b"fail", b" policy.dmarc=reject")
        verdict = self.judge(
            claimed.replace(b"relay.example", b"mine.example") + b"From: a@evil.example\r\n\r\n"
        )
        self.assertEqual(verdict.junk, "")
