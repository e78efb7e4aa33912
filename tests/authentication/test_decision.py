"""The consequence of what was found out, and what Authentication-Results says of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from twisted.trial.unittest import SynchronousTestCase

from mta.authentication import spf
from mta.authentication.decision import AUTHORS_UNCLEAR, Action, decide, unclear_authors
from mta.authentication.dkim import DKIMResult, ResultCode
from mta.authentication.dmarc import (
    AuthorDomains,
    DMARCResult,
    Identifiers,
    Policy,
    Record,
    Result,
)
from mta.authentication.judged import Judged, identifiers, method_results
from mta.authentication.results import value_of
from mta.settings import Authentication, Judgement, OnDNSError

BANK = "bank.example"
SPF = {each: spf.SPFResult(each, "evil.example", spf.Identity.MAIL_FROM) for each in spf.Result}
DEFER = OnDNSError.DEFER


def dmarc(result: Result = Result.FAIL, policy: Policy = Policy.REJECT) -> DMARCResult:
    """A result for the bank."""
    return DMARCResult(result, BANK, policy, BANK, record=Record(policy))


@dataclass(frozen=True)
class Row:
    """What was found, what is configured, and what follows."""

    action: Action
    code: str = ""
    spf: spf.Result = spf.Result.NONE
    dmarc: DMARCResult | None = None
    override: str = ""
    settings: Authentication = field(default_factory=Authentication)


REJECT = Authentication(dmarc=Judgement.REJECT)
SPF_REJECT = Authentication(spf=Judgement.REJECT)
NONE, JUNK, DEFERRED, REJECTED = Action.NONE, Action.JUNK, Action.DEFER, Action.REJECT
FAIL, PASS, TEMPERROR = spf.Result.FAIL, Result.PASS, Result.TEMPERROR

ROWS = {
    "nothing is known": Row(NONE),
    "it passes": Row(NONE, dmarc=dmarc(PASS), settings=REJECT),
    "no policy": Row(NONE, dmarc=dmarc(Result.NONE), settings=REJECT),
    "p=none": Row(NONE, dmarc=dmarc(policy=Policy.NONE), settings=REJECT),
    "p=reject is quarantined": Row(JUNK, dmarc=dmarc()),
    "p=quarantine": Row(JUNK, dmarc=dmarc(policy=Policy.QUARANTINE)),
    "p=quarantine is never rejected": Row(
        JUNK, dmarc=dmarc(policy=Policy.QUARANTINE), settings=REJECT
    ),
    "p=reject by choice": Row(REJECTED, "550 5.7.26", dmarc=dmarc(), settings=REJECT),
    "recorded only": Row(NONE, dmarc=dmarc(), settings=Authentication(dmarc=Judgement.RECORD)),
    "a trusted forwarder": Row(NONE, dmarc=dmarc(), override="trusted", settings=REJECT),
    "no DNS, accepted": Row(NONE, dmarc=dmarc(TEMPERROR), settings=REJECT),
    "no DNS, deferred": Row(
        DEFERRED, "451 4.4.3", dmarc=dmarc(TEMPERROR), settings=Authentication(on_dns_error=DEFER)
    ),
    "no DNS for SPF, deferred": Row(
        DEFERRED, "451 4.7.24", spf.Result.TEMPERROR, dmarc(TEMPERROR),
        settings=Authentication(on_dns_error=DEFER),
    ),
    "no DNS for SPF, and DKIM passes": Row(
        NONE, spf=spf.Result.TEMPERROR, dmarc=dmarc(PASS),
        settings=Authentication(spf=Judgement.REJECT, on_dns_error=DEFER),
    ),
    "no DNS, recorded only": Row(
        NONE, dmarc=dmarc(TEMPERROR),
        settings=Authentication(dmarc=Judgement.RECORD, on_dns_error=DEFER),
    ),
    "no DNS, trusted": Row(
        NONE, dmarc=dmarc(TEMPERROR), override="trusted",
        settings=Authentication(on_dns_error=DEFER),
    ),
    "SPF fails": Row(NONE, spf=FAIL),
    "SPF fails, by choice": Row(REJECTED, "550 5.7.23", FAIL, settings=SPF_REJECT),
    "SPF softly fails": Row(NONE, spf=spf.Result.SOFTFAIL, settings=SPF_REJECT),
    "SPF fails, and DKIM is aligned": Row(NONE, spf=FAIL, dmarc=dmarc(PASS), settings=SPF_REJECT),
    "SPF fails, and so does DMARC": Row(JUNK, spf=FAIL, dmarc=dmarc(), settings=SPF_REJECT),
    "SPF fails, trusted": Row(NONE, spf=FAIL, override="trusted", settings=SPF_REJECT),
    "SPF unknown, deferred": Row(
        DEFERRED, "451 4.7.24", spf.Result.TEMPERROR, dmarc(Result.NONE),
        settings=Authentication(spf=Judgement.REJECT, on_dns_error=DEFER),
    ),
    "SPF unknown, and only recorded": Row(
        NONE, spf=spf.Result.TEMPERROR, dmarc=dmarc(Result.NONE),
        settings=Authentication(on_dns_error=DEFER),
    ),
}  # fmt: skip


class DecisionTests(SynchronousTestCase):
    """What was found, and what follows."""

    def test_each(self) -> None:
        """The codes are those of RFC 7372; what is not configured has no consequence."""
        for name, row in ROWS.items():
            with self.subTest(name):
                judged = Judged("192.0.2.1", SPF[row.spf], (), row.dmarc, row.override)
                decision = decide(row.settings, judged)
                self.assertIs(decision.action, row.action)
                self.assertEqual(bool(decision.reason), row.action is JUNK)
                reply = decision.reply
                self.assertEqual(f"{reply.code} {reply.enhanced}" if reply else "", row.code)

    def test_words(self) -> None:
        """A refusal names the domain, the policy, and the check."""
        (text,) = decide(REJECT, Judged("192.0.2.1", dmarc=dmarc())).reply.lines  # type: ignore[union-attr]
        for word in ("DMARC", BANK, "p=reject", "SPF", "DKIM"):
            self.assertIn(word, text)
        checked = spf.SPFResult(FAIL, "evil.example", spf.Identity.MAIL_FROM, "Ask us")
        reply = decide(SPF_REJECT, Judged("2001:db8::1", checked)).reply
        assert reply is not None
        self.assertEqual(
            reply.lines,
            (
                "SPF: evil.example says that [IPv6:2001:db8::1] may not send its mail",
                "evil.example explains: Ask us",
            ),
        )

    def test_authors(self) -> None:
        """Where it is not clear who the author is, the policy of nobody could be applied."""
        unclear = AuthorDomains((BANK, "x.example"), 2)
        for mode, reply in (
            (Judgement.RECORD, None),
            (Judgement.QUARANTINE, AUTHORS_UNCLEAR),
            (Judgement.REJECT, AUTHORS_UNCLEAR),
        ):
            settings = Authentication(dmarc=mode)
            self.assertEqual(unclear_authors(settings, unclear).reply, reply)
            self.assertIsNone(unclear_authors(settings, AuthorDomains((BANK,), 1)).reply)
            self.assertIsNone(unclear_authors(settings, AuthorDomains((), 0)).reply)


class TellingTests(SynchronousTestCase):
    """What others are told."""

    def test_identifiers(self) -> None:
        """SPF of HELO is none for DMARC; what passed and what is unknown are."""
        hello = spf.SPFResult(spf.Result.PASS, BANK, spf.Identity.HELO)
        self.assertEqual(identifiers(hello, None), Identifiers())
        mail = spf.SPFResult(spf.Result.PASS, BANK, spf.Identity.MAIL_FROM)
        signatures = [
            DKIMResult(ResultCode.PASS, "a.example"),
            DKIMResult(ResultCode.FAIL, "b.example"),
            DKIMResult(ResultCode.TEMPERROR, "c.example"),
            DKIMResult(ResultCode.PASS, "d.example"),
        ]
        self.assertEqual(
            identifiers(mail, signatures),
            Identifiers(BANK, ("a.example", "d.example"), "", ("c.example",)),
        )
        unknown = spf.SPFResult(spf.Result.TEMPERROR, BANK, spf.Identity.MAIL_FROM)
        self.assertEqual(identifiers(unknown, ()), Identifiers(unknown_spf=BANK))

    def test_field(self) -> None:
        """Each result in the words of RFC 8601, with its reason."""
        judged = Judged(
            "192.0.2.1",
            SPF[FAIL],
            [
                DKIMResult(ResultCode.PASS, BANK, "2026a", "rsa-sha256", "@x", "dzdVyOfA"),
                DKIMResult(ResultCode.NEUTRAL, problem="no b="),
            ],
            dmarc(),
        )
        self.assertEqual(
            value_of("mta.example", method_results(judged)),
            b"mta.example;\r\n"
            b"        spf=fail smtp.mailfrom=evil.example;\r\n"
            b"        dkim=pass header.d=bank.example header.s=2026a header.a=rsa-sha256\r\n"
            b"        header.b=dzdVyOfA;\r\n"
            b'        dkim=neutral reason="no b=";\r\n'
            b"        dmarc=fail header.from=bank.example policy.dmarc=reject",
        )
        self.assertEqual(judged.words, {"spf": "fail", "dkim": "pass", "dmarc": "fail"})

    def test_other_fields(self) -> None:
        """What was asked for is there, if only to say that there is nothing."""
        found = Judged("192.0.2.1", dkim=(), dmarc=dmarc(), override="trusted forwarder")
        self.assertEqual(
            value_of("mta.example", method_results(found)),
            b"mta.example;\r\n        dkim=none;\r\n"
            b'        dmarc=fail reason="trusted forwarder" header.from=bank.example\r\n'
            b"        policy.dmarc=none",
        )
        self.assertEqual(value_of("mta.example", method_results(Judged(""))), b"mta.example; none")
        self.assertEqual(Judged("").words, {"spf": "off", "dkim": "off", "dmarc": "off"})
        self.assertEqual(found.words["dkim"], "none")
