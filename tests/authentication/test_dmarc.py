"""DMARC (RFC 9989): records, the tree walk, evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.authentication.dmarc import (
    MAX_QUERIES,
    DMARCResult,
    Identifiers,
    Policy,
    Record,
    Result,
    author_domains,
    evaluate,
    evaluate_all,
    parse_record,
)
from mta.authentication.dmarc.tree_walk import TreeWalk, names
from mta.dns_answer import Answer, RecordType
from mta.sync import result_of
from tests.authentication.odd_mail import ODD_MAIL
from tests.authentication.zones import TextZone, zone

NONE, QUARANTINE, REJECT = Policy.NONE, Policy.QUARANTINE, Policy.REJECT
RUA = "rua=mailto:r@example.com"
DEEP = "a.b.c.d.e.f.g.h.i.j.k.example.com"


def evaluated(
    dns: TextZone, domain: str, *, spf: str = "", dkim: Sequence[str] = ()
) -> DMARCResult:
    """Evaluate one domain."""
    return result_of(evaluate(TreeWalk(dns), domain, Identifiers(spf, tuple(dkim))))


# Records, with what they come to.
RECORDS = [
    ("v=DMARC1;p=reject", Record(REJECT)),
    ("v=DMARC1; p=REJECT ; SP=none;", Record(REJECT, NONE)),
    ("v = DMARC1 ; p = quarantine; np=reject", Record(QUARANTINE, nonexistent=REJECT)),
    ("v=DMARC1; adkim=s; aspf=S; p=none", Record(strict_dkim=True, strict_spf=True)),
    ("v=DMARC1; aspf=x; adkim=; p=none", Record()),
    ("v=DMARC1; p=reject; t=y; psd=n", Record(REJECT, is_test=True, psd="n")),
    ("v=DMARC1; p=reject; psd=maybe; t=perhaps", Record(REJECT)),
    ("v=DMARC1; p=reject; pct=0; rf=afrf; ri=86400; new=tag; =;;x", Record(REJECT)),
    ("v=DMARC1; p=reject; p=none", Record(REJECT)),
    (f"v=DMARC1; p=oops; {RUA}", Record(rua=("mailto:r@example.com",))),
    (f"v=DMARC1; p=reject; sp=oops; {RUA}", Record(rua=("mailto:r@example.com",))),
    (f"v=DMARC1; {RUA}", Record(rua=("mailto:r@example.com",))),
    ("v=DMARC1; p=reject; np=oops", Record(applies=False)),
    ("v=DMARC1; p=oops; rua=nowhere", Record(applies=False)),
    ("v=DMARC1", Record(applies=False)),
    (
        "v=DMARC1; p=none; rua=mailto:a@x.y!10m , https://x.y/z,mailto:b,ftp; ruf=mailto:c@x.y; "
        "fo=1:d:q",
        Record(
            rua=("mailto:a@x.y!10m", "https://x.y/z"), ruf=("mailto:c@x.y",), fo=frozenset("1d")
        ),
    ),
]
NO_RECORDS = [
    "",
    "v=DMARC",
    "v=dmarc1; p=reject",
    "v=DMARC1x; p=reject",
    "v=DMARC2; p=reject",
    "p=reject; v=DMARC1",
    " v=DMARC1; p=reject",
    "v=spf1 -all",
    "v=DMARC1; p=reject; x=" + "y" * 5000,
]


class RecordTests(SynchronousTestCase):
    """The text of records."""

    def test_records(self) -> None:
        """Only the version must be right; of what else is wrong the default counts."""
        for text, record in RECORDS:
            with self.subTest(text):
                self.assertEqual(parse_record(text.encode()), record)

    def test_no_records(self) -> None:
        """The version is first, and exact."""
        for text in NO_RECORDS:
            with self.subTest(text):
                self.assertIsNone(parse_record(text.encode()))

    @given(st.binary(max_size=100))
    def test_anything(self, octets: bytes) -> None:
        """Whatever follows the version, there is a record."""
        self.assertIsInstance(parse_record(b"v=DMARC1;" + octets), Record)
        parse_record(octets)


@dataclass(frozen=True)
class Example:
    """A domain, the records by domain, and what follows."""

    domain: str
    records: dict[str, str | list[str]]
    organisation: str
    applied: str = ""  # the domain of the record that applies; empty: none does


P = "v=DMARC1; p=reject"
TWO = [P, "v=DMARC1; p=none"]
EXAMPLES = {
    "4.10.2 a": Example("a.mail.example.com", {"mail.example.com": P, "example.com": P},
                        "example.com", "example.com"),
    "4.10.2 b": Example("a.mail.example.com", {"mail.example.com": f"{P}; psd=n",
                        "example.com": P}, "mail.example.com", "mail.example.com"),
    "4.10.2 c": Example("a.mail.example.com", {"com": f"{P}; psd=y"}, "example.com", "com"),
    "B.4.1 author": Example("example.com", {"example.com": P, "signing.example.com": P},
                            "example.com", "example.com"),
    "B.4.1 DKIM": Example("signing.example.com", {"example.com": P, "signing.example.com": P},
                          "example.com", "signing.example.com"),
    "B.4.2": Example(DEEP, {"example.com": P, "signing.example.com": P}, "example.com",
                     "example.com"),
    "B.4.3 author": Example("giant.bank.example", {"bank.example": f"{P}; psd=y",
                            "giant.bank.example": P}, "giant.bank.example", "giant.bank.example"),
    "B.4.3 MAIL": Example("mail.giant.bank.example", {"bank.example": f"{P}; psd=y",
                          "giant.bank.example": P}, "giant.bank.example", "giant.bank.example"),
    "B.4.3 DKIM": Example("mail.mega.bank.example", {"bank.example": f"{P}; psd=y"},
                          "mega.bank.example", "bank.example"),
    "no record": Example("a.example.com", {}, "a.example.com"),
    "a suffix itself": Example("bank.example", {"bank.example": f"{P}; psd=y"}, "bank.example",
                               "bank.example"),
    "several records": Example("a.example.com", {"a.example.com": TWO, "example.com": P},
                               "example.com", "example.com"),
    "several, and nothing else": Example("example.com", {"example.com": TWO}, "example.com"),
    "a record among others": Example("example.com", {"example.com": ["x", P, "v=spf1 -all"]},
                                     "example.com", "example.com"),
    "too deep to be found": Example(DEEP, {"f.g.h.i.j.k.example.com": f"{P}; psd=n",
                                           "example.com": P}, "example.com", "example.com"),
    "a whole name is asked for": Example(DEEP, {DEEP: f"{P}; psd=n"}, DEEP, DEEP),
    "one label": Example("localhost", {}, "localhost"),
}  # fmt: skip


class TreeWalkTests(SynchronousTestCase):
    """The examples of RFC 9989, and what else there is."""

    def test_examples(self) -> None:
        """Organisational domain and record are those that the RFC names."""
        for name, example in EXAMPLES.items():
            with self.subTest(name):
                walk = TreeWalk(zone(example.records))
                organisation = result_of(walk.organisational_domain(example.domain))
                self.assertEqual(organisation, example.organisation)
                applied = result_of(TreeWalk(zone(example.records)).applied(example.domain))
                self.assertEqual(applied.domain if applied else "", example.applied)

    def test_names(self) -> None:
        """A long name costs eight queries, and the RFC has the list of them."""
        self.assertEqual(
            names("a.b.c.d.e.f.g.h.i.j.mail.example.com"),
            [
                "a.b.c.d.e.f.g.h.i.j.mail.example.com",
                "g.h.i.j.mail.example.com",
                "h.i.j.mail.example.com",
                "i.j.mail.example.com",
                "j.mail.example.com",
                "mail.example.com",
                "example.com",
                "com",
            ],
        )

    def test_each_name_is_asked_for_once(self) -> None:
        """Another walk of the same message goes by what the first one found."""
        dns = zone({"example.com": P})
        walk = TreeWalk(dns)
        result_of(walk.applied("a.b.example.com"))
        result_of(walk.organisational_domain("a.b.example.com"))
        result_of(walk.organisational_domain("b.example.com"))
        self.assertEqual(
            dns.queries,
            ["_dmarc.a.b.example.com", "_dmarc.b.example.com", "_dmarc.example.com", "_dmarc.com"],
        )

    @given(
        st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=30).map(".".join),
        st.dictionaries(
            st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=9).map(".".join),
            st.sampled_from([P, f"{P}; psd=n", f"{P}; psd=y", "v=DMARC1"]),
            max_size=6,
        ),
    )
    def test_bound(self, domain: str, records: dict[str, str]) -> None:
        """However deep a name is, a walk has its bound, and ends at the domain or above it."""
        dns = zone(dict(records))
        organisation = result_of(TreeWalk(dns).organisational_domain(domain))
        self.assertLessEqual(len(dns.queries), MAX_QUERIES)
        self.assertTrue(f".{domain}".endswith(f".{organisation}"))


class AlignmentTests(SynchronousTestCase):
    """RFC 9989 appendix B.1, and identifiers of others."""

    def test_examples(self) -> None:
        """Strict, relaxed, and not aligned: SPF and DKIM alike."""
        strict = {"example.com": "v=DMARC1; p=reject; adkim=s; aspf=s"}
        relaxed = {"example.com": P}
        table = [
            # author, identifier, with relaxed alignment, with strict alignment
            ("example.com", "example.com", Result.PASS, Result.PASS),
            ("example.com", "EXAMPLE.com.", Result.PASS, Result.PASS),
            ("example.com", "child.example.com", Result.PASS, Result.FAIL),
            ("child.example.com", "example.com", Result.PASS, Result.FAIL),
            ("child.example.com", "example.net", Result.FAIL, Result.FAIL),
            ("example.com", "notexample.com", Result.FAIL, Result.FAIL),
            ("example.com", "com", Result.FAIL, Result.FAIL),
            ("example.com", "", Result.FAIL, Result.FAIL),
        ]
        for author, identifier, if_relaxed, if_strict in table:
            for records, expected in ((relaxed, if_relaxed), (strict, if_strict)):
                with self.subTest(author, identifier=identifier, expected=expected):
                    by_spf = evaluated(zone(records), author, spf=identifier)
                    by_dkim = evaluated(zone(records), author, dkim=["x.example", identifier])
                    self.assertEqual((by_spf.result, by_dkim.result), (expected, expected))

    def test_one_is_enough(self) -> None:
        """All that is aligned is told."""
        found = evaluated(
            zone({"example.com": P}),
            "example.com",
            spf="example.net",
            dkim=["other.example", "a.example.com", "example.com"],
        )
        self.assertEqual(found.result, Result.PASS)
        self.assertEqual(found.aligned_spf, "")
        self.assertEqual(found.aligned_dkim, ("a.example.com", "example.com"))
        self.assertEqual(found.disposition, NONE)

    def test_strangers_are_not_looked_up(self) -> None:
        """The name servers of a domain elsewhere can't delay, or put off, what is decided."""
        dns = zone({"example.com": P}, frozenset({"_dmarc.evil.net", "_dmarc.evil.com"}))
        found = evaluated(dns, "example.com", spf="evil.net", dkim=["evil.com"])
        self.assertEqual(found.result, Result.FAIL)
        self.assertNotIn("_dmarc.evil.com", dns.queries)

    def test_departments(self) -> None:
        """With ``psd=n`` below it, a domain vouches for no mail of that department."""
        records = {"example.com": P, "lab.example.com": f"{P}; psd=n"}
        self.assertIs(
            evaluated(zone(records), "lab.example.com", dkim=["example.com"]).result, Result.FAIL
        )
        self.assertIs(
            evaluated(zone(records), "example.com", dkim=["lab.example.com"]).result, Result.FAIL
        )
        self.assertIs(
            evaluated(zone(records), "lab.example.com", dkim=["a.lab.example.com"]).result,
            Result.PASS,
        )


class PolicyTests(SynchronousTestCase):
    """The policy that applies to a message."""

    def disposition(
        self, record: str, domain: str, *, exists: bool = True, at: str = "example.com"
    ) -> Policy:
        """Return the policy for a message of `domain` that fails."""
        dns = zone({at: record})
        dns.answers[domain, RecordType.A] = Answer(exists=exists)
        return evaluated(dns, domain).disposition

    def test_tags(self) -> None:
        """Subdomains have ``sp``, without existence ``np``; with ``t`` it is a step milder."""
        table = [
            # record, domain, whether it exists, the policy
            ("p=reject", "example.com", True, REJECT),
            ("p=reject; sp=none; np=none", "example.com", True, REJECT),
            ("p=reject", "a.example.com", True, REJECT),
            ("p=reject; sp=quarantine", "a.example.com", True, QUARANTINE),
            ("p=reject; sp=quarantine", "a.example.com", False, QUARANTINE),
            ("p=none; np=reject", "a.example.com", True, NONE),
            ("p=none; np=reject", "a.example.com", False, REJECT),
            ("p=none; np=reject; sp=quarantine", "a.example.com", True, QUARANTINE),
            ("p=reject; t=y", "example.com", True, QUARANTINE),
            ("p=quarantine; t=y", "example.com", True, NONE),
            ("p=none; t=y", "example.com", True, NONE),
            ("p=none; np=reject; t=y", "a.example.com", False, QUARANTINE),
        ]
        for tags, domain, exists, policy in table:
            with self.subTest(tags, domain=domain, exists=exists):
                self.assertIs(self.disposition(f"v=DMARC1; {tags}", domain, exists=exists), policy)

    def test_public_suffix(self) -> None:
        """The record of a public suffix counts where the organisation has none."""
        record = "v=DMARC1; p=none; sp=reject; psd=y"
        self.assertIs(self.disposition(record, "a.b.bank.example", at="bank.example"), REJECT)

    def test_no_policy(self) -> None:
        """Without a record, or with one that is too broken, DMARC says nothing."""
        for records in ({}, {"example.com": "v=DMARC1; p=oops"}, {"example.com": TWO}):
            found = evaluated(zone(records), "example.com")
            self.assertEqual((found.result, found.disposition), (Result.NONE, NONE))


class FailureTests(SynchronousTestCase):
    """The DNS does not answer."""

    def test_no_policy(self) -> None:
        """Neither pass nor fail, whatever else passed."""
        for name in ("_dmarc.a.example.com", "_dmarc.example.com"):
            dns = zone({"example.com": P}, frozenset({name}))
            found = evaluated(dns, "a.example.com", dkim=["a.example.com"])
            self.assertEqual((found.result, found.disposition), (Result.TEMPERROR, NONE))
            self.assertIn(name, found.problem)

    def test_existence_unknown(self) -> None:
        """Nor where it can't be said if the domain exists."""
        dns = zone({"example.com": f"{P}; np=none"}, frozenset({"a.example.com"}))
        self.assertIs(evaluated(dns, "a.example.com").result, Result.TEMPERROR)

    def test_alignment_unknown(self) -> None:
        """An identifier that might be aligned: neither; with another one that is: pass."""
        dns = zone({"example.com": P}, frozenset({"_dmarc.a.example.com"}))
        self.assertIs(
            evaluated(dns, "example.com", dkim=["a.example.com"]).result, Result.TEMPERROR
        )
        self.assertIs(evaluated(dns, "example.com", spf="example.com",
                                dkim=["a.example.com"]).result, Result.PASS)  # fmt: skip

    def test_identifiers_unknown(self) -> None:
        """SPF or DKIM might have passed: neither, but only where that would be aligned."""
        table = [
            (Identifiers(unknown_spf="a.example.com"), Result.TEMPERROR),
            (Identifiers(unknown_dkim=("x.example", "example.com")), Result.TEMPERROR),
            (Identifiers("example.com", unknown_dkim=("example.com",)), Result.PASS),
            (Identifiers(unknown_spf="evil.example", unknown_dkim=("evil.com",)), Result.FAIL),
        ]
        for identifiers, expected in table:
            with self.subTest(identifiers):
                dns = zone({"example.com": P})
                found = result_of(evaluate(TreeWalk(dns), "example.com", identifiers))
                self.assertIs(found.result, expected)


AUTHORS = [
    (b"From: a@example.com", ["example.com"]),
    (b"From: A <a@Example.COM.>", ["example.com"]),
    (b'From: "ceo@bank.example" <a@example.com>', ["example.com"]),
    (b"From: ceo@bank.example <a@example.com>", ["example.com"]),
    (b"From: A (a@bank.example) <a@example.com>", ["example.com"]),
    (b"From: Foo, Inc. <a@example.com>", ["example.com"]),
    (b"From: =?utf-8?q?a=40bank.example?= <a@example.com>", ["example.com"]),
    (b"From: a@example.com, B <b@example.net>, c@example.com", ["example.com", "example.net"]),
    (b"From: Team: a@example.com, b@example.net;", ["example.com", "example.net"]),
    (b"From: <@relay.example:a@example.com>", ["example.com"]),
    (b'From: "a b"@example.com', ["example.com"]),
    (b"From: a @ example . com", ["example.com"]),
    (b"From: A\r\n <a@\r\n example.com>", ["example.com"]),
    ("From: a@bücher.example".encode(), ["xn--bcher-kva.example"]),
    ("From: a@b\xfccher.example".encode("latin-1"), ["xn--bcher-kva.example"]),
    (b"From: a@[192.0.2.1]", []),
    (b"From: nobody", []),
    (b"From:", []),
    (b"From: <>", []),
    (b'From: "A <a@example.com>', ["example.com"]),
    (b"From: A (b <a@example.com>", ["example.com"]),
    (b"Subject: x", []),
]


class AuthorTests(SynchronousTestCase):
    """The domains of authors."""

    def test_domains(self) -> None:
        """Every domain that a reader may take for the author's."""
        for field, domains in AUTHORS:
            with self.subTest(field):
                found = author_domains(field + b"\r\nTo: x@y.example\r\n\r\n")
                self.assertEqual(list(found.domains), domains)
                self.assertTrue(found.is_clear)

    def test_odd_mail(self) -> None:
        """In messages as programs write them, too."""
        for name, content in ODD_MAIL.items():
            found = author_domains(content.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
            self.assertEqual((found.domains, found.is_clear), (("example.com",), True), name)

    def test_several_fields(self) -> None:
        """Both are told, and that it is not clear who the author is."""
        found = author_domains(b"From: a@x.example\r\nfrom : b@y.example\r\n\r\n")
        self.assertEqual(found.domains, ("x.example", "y.example"))
        self.assertFalse(found.is_clear)

    @given(st.text(alphabet='a@.<>"()\\,;: \xe4\n', max_size=60))
    def test_anything(self, text: str) -> None:
        """Whatever From: says, the domains are names that the DNS can be asked for."""
        for domain in author_domains(b"From: " + text.encode() + b"\r\n\r\n").domains:
            self.assertRegex(domain, r"\A[a-z0-9_.-]+\Z")

    def test_the_worst_counts(self) -> None:
        """A second author does not make the policy of the first void."""
        dns = zone({"bank.example": P, "evil.example": "v=DMARC1; p=none"})
        both = ["evil.example", "bank.example", "else.example"]
        found = result_of(evaluate_all(TreeWalk(dns), both, Identifiers(dkim=("evil.example",))))
        self.assertEqual((found.domain, found.disposition), ("bank.example", REJECT))
        self.assertIs(result_of(evaluate_all(TreeWalk(dns), [], Identifiers())).result, Result.NONE)

    @settings(deadline=None)
    @given(
        st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=12).map(".".join),
        st.lists(
            st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=12).map(".".join),
            max_size=10,
        ),
    )
    def test_bound(self, domain: str, dkim: list[str]) -> None:
        """The queries for one author are bounded, whatever was signed."""
        dns = zone({"a": P, "b": P})
        evaluated(dns, domain, spf="a.a", dkim=dkim)
        self.assertLessEqual(len(dns.queries), MAX_QUERIES * (len(dkim) + 2))
        self.assertEqual(len(dns.queries), len(set(dns.queries)))


class OracleTests(SynchronousTestCase):
    """The package ``dmarc`` evaluates RFC 7489, which agrees where there is no tree to walk."""

    if find_spec("dmarc") is None:
        skip = "the package dmarc is not installed"

    @settings(deadline=None)
    @given(
        st.sampled_from(["example.com", "a.example.com", "a.b.example.com"]),
        st.sampled_from(["none", "quarantine", "reject"]),
        st.sampled_from(["", "sp=none", "sp=quarantine", "sp=reject"]),
        st.sampled_from(["", "adkim=r", "adkim=s"]),
        st.sampled_from(["", "aspf=r", "aspf=s"]),
        st.sampled_from(["", "example.com", "a.example.com", "x.example.com", "example.net"]),
        st.sampled_from(["", "example.com", "a.example.com", "x.example.com", "notexample.com"]),
    )
    def test_agrees(
        self, domain: str, p: str, sp: str, adkim: str, aspf: str, spf: str, dkim: str
    ) -> None:
        """The same alignment, and the same policy."""
        import dmarc

        record = "; ".join(filter(None, ("v=DMARC1", f"p={p}", sp, adkim, aspf)))
        organisation = "example.com" if domain != "example.com" else None
        policy = dmarc.DMARCPolicy(record, domain, organisation, publicsuffix=_Suffix())
        found = [dmarc.SPF(spf, dmarc.SPFResult.PASS)] if spf else []
        found += [dmarc.DKIM(dkim, dmarc.DKIMResult.PASS)] if dkim else []
        try:
            policy.verify(auth_results=found)
            theirs = "none"
        except dmarc.PolicyError:
            theirs = policy.result.disposition.value
        ours = evaluated(
            zone({"example.com": record}), domain, spf=spf, dkim=[dkim] if dkim else []
        )
        self.assertEqual(
            (ours.result.value, ours.disposition.value), (policy.result.result.value, theirs)
        )


class _Suffix:
    """A list of public suffixes: top-level domains."""

    def get_public_suffix(self, domain: str) -> str:
        """The domain below the top-level domain."""
        return ".".join(domain.split(".")[-2:])
