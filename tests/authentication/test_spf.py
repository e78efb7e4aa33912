"""SPF: what the suite of RFC 7208 leaves open, bounds, and chance."""

from __future__ import annotations

import re
from typing import Any
from unittest import SkipTest

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.authentication.spf import Identity, Limits, Result, SPFResult, check_hello, check_host
from mta.authentication.spf.record import MAX_RECORD, parse
from mta.authentication.spf.result import PermError
from mta.dns_answer import RecordType
from mta.interfaces import IResolver
from mta.mail import NULL_PATH, Mailbox
from mta.sync import result_of
from tests.authentication.spf_zones import Zone, ZoneResolver

NOW = 1_800_000_000
ALICE = Mailbox("alice", "a.example")
UNHURRIED = Limits(lambda: NOW)
# The record, ten terms with eleven questions each, the names of the client, the explanation.
MAX_QUESTIONS = 1 + 10 * 11 + 11 + 1
# A name that may match whatever is asked.
DOMAINS = ["a.example", "b.example", "c.example", "mail.a.example", "x.b.example"]


class CheckCase(SynchronousTestCase):
    """Checks against a zone."""

    def check(
        self,
        zone: Zone,
        mail_from: Mailbox = ALICE,
        address: str = "192.0.2.1",
        hello: str = "mail.a.example",
        limits: Limits = UNHURRIED,
    ) -> SPFResult:
        """Check a client, by default one that writes as alice@a.example."""
        self.resolver = ZoneResolver(zone)
        return self.successResultOf(
            check_host(
                self.resolver,
                address=address,
                mail_from=mail_from,
                hello=hello,
                receiver="mx.example.net",
                limits=limits,
            )
        )

    def assert_result(
        self, result: Result, record: str, zone: Zone | None = None, **case: Any
    ) -> SPFResult:
        """Check by the record of a.example."""
        found = self.check({"a.example": [{"TXT": record}], **(zone or {})}, **case)
        self.assertIs(found.result, result, found)
        return found


class IdentityTests(CheckCase):
    """What is checked."""

    def test_stand_in(self) -> None:
        """The zone is a resolver."""
        verifyObject(IResolver, ZoneResolver({}))

    def test_reverse_path(self) -> None:
        """A reverse-path is checked by its domain."""
        found = self.assert_result(Result.PASS, "v=spf1 ip4:192.0.2.0/24 -all")
        self.assertEqual(found, SPFResult(Result.PASS, "a.example", Identity.MAIL_FROM))

    def test_null_reverse_path(self) -> None:
        """The null reverse-path is that of postmaster at the name of HELO."""
        zone = {
            "mail.b.example": [{"TXT": "v=spf1 exists:%{l}.%{o}.%{h} -all"}],
            "postmaster.mail.b.example.mail.b.example": [{"A": "127.0.0.2"}],
        }
        found = self.check(zone, NULL_PATH, hello="Mail.B.example")
        self.assertEqual(found, SPFResult(Result.PASS, "mail.b.example", Identity.HELO))

    def test_hello(self) -> None:
        """The name of HELO can be checked by itself."""
        resolver = ZoneResolver({"mail.a.example": [{"TXT": "v=spf1 -all"}]})
        found = self.successResultOf(
            check_hello(
                resolver,
                address="192.0.2.1",
                hello="mail.a.example.",
                receiver="",
                limits=UNHURRIED,
            )
        )
        self.assertEqual(found, SPFResult(Result.FAIL, "mail.a.example", Identity.HELO))

    def test_names_that_have_no_record(self) -> None:
        """What is no name of two labels is not asked for."""
        long = ".".join(["x" * 60] * 5)
        label = "x" * 64
        for domain in (
            *("localhost", "[192.0.2.1]", "a..example", ".a.example"),
            *(f"{label}.a.example", long),
        ):
            found = self.check({}, Mailbox("alice", domain))
            self.assertIs(found.result, Result.NONE, domain)
            self.assertEqual(self.resolver.asked.total(), 0, domain)

    def test_no_address(self) -> None:
        """A program of this host, or a client whose address is not told, is not checked."""
        for address in ("unix", "unknown", ""):
            found = self.assert_result(Result.NONE, "v=spf1 -all", address=address)
            self.assertEqual(found.problem, "")

    def test_scope(self) -> None:
        """The interface of a link-local address is not part of it."""
        self.assert_result(Result.PASS, "v=spf1 ip6:fe80::/10 -all", address="fe80::1%eth0")

    def test_other_alphabets(self) -> None:
        """Domains are asked for by their A-labels, in reverse-path and HELO."""
        zone = {"xn--bcher-kva.example": [{"TXT": "v=spf1 a:%{h} -all"}],
                "mx.xn--bcher-kva.example": [{"A": "192.0.2.1"}]}  # fmt: skip
        found = self.check(zone, Mailbox("alice", "Bücher.example"), hello="mx.bücher.example")
        self.assertEqual(found, SPFResult(Result.PASS, "xn--bcher-kva.example", Identity.MAIL_FROM))

    def test_local_part_in_another_alphabet(self) -> None:
        """Terms that name such a local part match nothing (RFC 8616 section 4)."""
        mail_from = Mailbox("jürgen", "a.example")
        zone = {"jürgen.a.example": [{"A": "192.0.2.1"}], "e.example": [{"TXT": "no, %{l}"}]}
        record = "v=spf1 a:%{l}.a.example -all exp=e.example"
        found = self.assert_result(Result.FAIL, record, zone, mail_from=mail_from)
        self.assertEqual(found.explanation, "")
        for record in ("v=spf1 redirect=%{l}.b.example", "v=spf1 include:%{s} ?all"):
            self.assert_result(Result.NEUTRAL, record, mail_from=mail_from)


FAULTS = """
    a: a:/24 a/ a/033 a//129 a/24/64 a:b a:b.c- a:b.123 mx:%{z}.b.example a:%{d0} a:%{d
    a:b.example% a:%{d}b ip4:192.0.2 ip4:192.0.2.01 ip4:192.0.2.1/33 ip4:2001:db8::1 ip6:192.0.2.1
    ip6:fe80::1%eth0 ip6:2001:db8::/129 include include: exists ptr: ptr/24 all:a.example all/8
    ALL. moo + - ++all redirect= exp= exp=%{c}.a.example x=%{ -x=y a:%{}.a.example a:%{lx} a:b..
"""
GOOD = """
    A MX/24 a:b.example/24//64 mx//64 a:%{D2} exists:%{ir}.%{v}._spf.%{d2} a:%{l1r+-}.b.example.
    a:b.1-2 a:x%% Exp=e.example EXISTS:a.b x.y-z_1=%{c} ip4:0.0.0.0/0 ip6:::/0
    ip6:::ffff:192.0.2.1 a:%{d00100r} a:%{d99999999999} ptr:a:b/c.example
"""


class RecordTests(CheckCase):
    """The grammar."""

    def test_faults(self) -> None:
        """A fault anywhere in a record is a permerror that names it."""
        for term in (*FAULTS.split(), "\tall", "all\t", "all\r", "redirect=a.b redirect=a.b"):
            found = self.assert_result(Result.PERMERROR, f"v=spf1 {term}")
            self.assertTrue(found.problem.startswith("a.example: "), term)

    def test_good_terms(self) -> None:
        """All that the grammar allows is read, in any case."""
        for term in GOOD.split():
            parse(f"v=spf1 {term} ?all".encode())

    def test_long_record(self) -> None:
        """The length of a record is bounded."""
        text = "v=spf1" + " ip4:192.0.2.1" * (MAX_RECORD // 15)
        self.assert_result(Result.PASS, text)
        found = self.assert_result(Result.PERMERROR, text + " " * MAX_RECORD)
        self.assertIn("8192 allowed", found.problem)

    @given(
        st.text(st.sampled_from("amxptr46includexists:/.%{}dlr0123456789-~?+= v_,"), max_size=60)
    )
    def test_any_text(self, terms: str) -> None:
        """A record can be read or not: nothing else comes of it."""
        try:
            parse(b"v=spf1 " + terms.encode())
        except PermError as error:
            self.assertTrue(str(error))

    @given(st.binary(max_size=60))
    def test_any_octets(self, octets: bytes) -> None:
        """Neither does of octets."""
        try:
            parse(b"v=spf1 " + octets)
        except PermError as error:
            self.assertTrue(str(error))


VALUES = """
    %{s} = al-i.ce=x@a.example
    %{l} = al-i.ce=x
    %{o} = a.example
    %{d} = a.example
    %{i} = 192.0.2.1
    %{h} = mail.a.example
    %{v} = in-addr
    %{c} = 192.0.2.1
    %{r} = mx.example.net
    %{t} = 1800000000
    %{p} = mail.a.example
    %{ir} = 1.2.0.192
    %{i2} = 2.1
    %{i2r} = 0.192
    %{l-} = al.i.ce=x
    %{l1-} = i.ce=x
    %{lr-=} = x.i.ce.al
    %{L} = al-i.ce%3Dx
    %{d9} = a.example
    %%,%_,%- = %, ,%20
    %{S1@} = -
"""


class MacroTests(CheckCase):
    """What macros become."""

    def test_values(self) -> None:
        """Each letter has its value, and each transformer its effect."""
        zone = {
            "1.2.0.192.in-addr.arpa": [{"PTR": "x.b.example"}, {"PTR": "mail.a.example"}],
            "x.b.example": [{"A": "192.0.2.1"}],
            "mail.a.example": [{"A": "192.0.2.1"}],
        }
        for macro, value in (row.split(" = ") for row in VALUES.strip().splitlines()):
            text = {"e.example": [{"TXT": macro.strip()}]}
            found = self.assert_result(
                Result.FAIL,
                "v=spf1 -all exp=e.example",
                zone | text,
                mail_from=Mailbox("al-i.ce=x", "a.example"),
            )
            self.assertEqual(found.explanation, value.strip("-"), macro)

    def test_address_of_ip6(self) -> None:
        """IPv6 is written in nibbles, and for people as they know it."""
        zone = {"e.example": [{"TXT": "%{c} %{i4r} %{v}"}]}
        record = "v=spf1 -all exp=e.example"
        found = self.assert_result(Result.FAIL, record, zone, address="2001:DB8::a")
        self.assertEqual(found.explanation, "2001:db8::a 1.0.0.2 ip6")

    def test_unknown_receiver(self) -> None:
        """A receiver that has no name is unknown."""
        zone = {"a.example": [{"TXT": "v=spf1 -all exp=e.example"}], "e.example": [{"TXT": "%{r}"}]}
        found = self.successResultOf(
            check_host(
                ZoneResolver(zone),
                address="192.0.2.1",
                mail_from=Mailbox("alice", "a.example"),
                hello="x",
                receiver="",
                limits=UNHURRIED,
            )
        )
        self.assertEqual(found.explanation, "unknown")

    def test_explanations_are_clean_and_short(self) -> None:
        """Whatever stands in one, a reply can have it."""
        zone = {"e.example": [{"TXT": "%{l}" * 9}]}
        mail_from = Mailbox("a\x01b" * 20, "a.example")
        found = self.assert_result(
            Result.FAIL, "v=spf1 -all exp=e.example", zone, mail_from=mail_from
        )
        self.assertEqual(found.explanation, ("a?b" * 180)[:300])

    def test_long_names_are_cut_at_the_left(self) -> None:
        """A name that macros made too long loses labels on its left (RFC 7208 section 7.3)."""
        long = ".".join(["x" * 30] * 7)
        self.assert_result(
            Result.PASS,
            "v=spf1 a:%{l}.%{l}.b.example -all",
            {f"{long}.b.example": [{"A": "192.0.2.1"}]},
            mail_from=Mailbox(long, "a.example"),
        )
        record = "v=spf1 a:%{l}.b.example -all"
        for local in ("x" * 300, "x." * 150 + "x", "xy." * 100 + "x"):
            mail_from = Mailbox(local, "a.example")
            self.assert_result(Result.FAIL, record, mail_from=mail_from)
            [(asked, _)] = [each for each in self.resolver.asked if each[0] != "a.example"]
            self.assertTrue(len(asked) <= 253 and asked.endswith("b.example"), asked)

    def test_many_macros(self) -> None:
        """The work for macros is bounded: of a domain, and of an explanation."""
        macros = "%{s}." * 103
        found = self.assert_result(Result.PERMERROR, f"v=spf1 ?all exists:{macros}com")
        self.assertIn("512 allowed", found.problem)
        zone = {"e.example": [{"TXT": "%{l}" * 251}]}
        found = self.assert_result(Result.FAIL, "v=spf1 -all exp=e.example", zone)
        self.assertEqual(found.explanation, "")


class LimitTests(CheckCase):
    """What is bounded."""

    def test_void_terms(self) -> None:
        """Two terms may find nothing; hosts without an address of the family are not terms."""
        self.assert_result(Result.FAIL, "v=spf1 a:x.example exists:y.example -all")
        self.assert_result(
            Result.PERMERROR, "v=spf1 a:x.example exists:y.example mx:z.example -all"
        )
        self.assert_result(Result.PERMERROR, "v=spf1 a:x.example a:y.example ptr -all")
        self.assert_result(Result.FAIL, "v=spf1 a:x.example ptr:a.example ptr:b.example -all")
        hosts = [{"MX": [n, f"mx{n}.example"]} for n in range(5)]
        zone = {f"mx{n}.example": [{"A": "192.0.2.1"}] for n in range(5)}
        self.assert_result(
            Result.FAIL, "v=spf1 mx:m.example -all", zone | {"m.example": hosts}, address="::1"
        )

    def test_ptr_asks_once(self) -> None:
        """The names of a client are asked for once, however many terms name them."""
        zone = {"1.2.0.192.in-addr.arpa": [{"PTR": f"x{n}.b.example"} for n in range(40)]}
        record = "v=spf1 " + "ptr:b.example exists:%{p}.c.example ptr:b.example -all"
        self.assert_result(Result.FAIL, record, zone)
        asked = [name for name, kind in self.resolver.asked if name.endswith("b.example")]
        self.assertEqual(len(asked), 10)
        self.assertEqual(self.resolver.asked["1.2.0.192.in-addr.arpa", RecordType.PTR], 1)
        self.assertEqual(max(self.resolver.asked[name, RecordType.A] for name in asked), 1)

    def test_deadline(self) -> None:
        """Past its time, a check asks nothing more, and says so."""
        time = iter(range(100))
        record = "v=spf1 a:x1.example a:x2.example -all"
        limits = Limits(lambda: next(time), deadline=3)
        found = self.assert_result(Result.TEMPERROR, record, limits=limits)
        self.assertEqual(found.problem, "it took too long")
        self.assertEqual(self.resolver.asked.total(), 2)

    def test_errors_of_the_dns(self) -> None:
        """A name server that is silent makes a temperror, but not about names of clients."""
        broken = {"b.example": ["TIMEOUT"], "1.2.0.192.in-addr.arpa": ["TIMEOUT"]}
        for term in ("a:b.example", "mx:b.example", "exists:b.example", "include:b.example"):
            found = self.assert_result(Result.TEMPERROR, f"v=spf1 {term} -all", broken)
            self.assertEqual(found.problem, "b.example: timed out")
        self.assert_result(Result.TEMPERROR, "v=spf1 redirect=b.example", broken)
        self.assert_result(Result.FAIL, "v=spf1 ptr -all", broken)
        self.assert_result(Result.FAIL, "v=spf1 -all exp=b.example", broken)


QUALIFIERS = st.sampled_from(["", "+", "-", "~", "?"])
SPECS = st.sampled_from(
    [
        *DOMAINS,
        "%{d}",
        "%{o}",
        "%{h}",
        "%{p}",
        "%{l}.b.example",
        "%{ir}.%{v}.c.example",
        "%{d1r}.example",
    ]
)
ADDRESSES = st.sampled_from(["192.0.2.1", "192.0.2.2", "192.0.2.77", "198.51.100.1"])
SIX = st.sampled_from(["2001:db8::1", "2001:db8::2", "2001:db8:1::1"])
LENGTHS = st.sampled_from(["", "/24", "/31", "//64", "/0", "/24//64", "/33"])
TERMS = st.one_of(
    st.builds("{}{}:{}{}".format, QUALIFIERS, st.sampled_from(["a", "mx"]), SPECS, LENGTHS),
    st.builds("{}{}{}".format, QUALIFIERS, st.sampled_from(["a", "mx"]), LENGTHS),
    st.builds("{}{}:{}".format, QUALIFIERS, st.sampled_from(["include", "exists", "ptr"]), SPECS),
    st.builds(
        "{}ip4:{}{}".format, QUALIFIERS, ADDRESSES, st.sampled_from(["", "/24", "/32", "/8"])
    ),
    st.builds("{}ip6:{}{}".format, QUALIFIERS, SIX, st.sampled_from(["", "/64", "/128"])),
    st.builds("{}all".format, QUALIFIERS),
    st.builds("redirect={}".format, SPECS),
    st.sampled_from(["exp=e.example", "x=y", "ptr", "moo"]),
)
RECORDS = st.builds(
    lambda terms, last: " ".join(["v=spf1", *terms, *last]),
    st.lists(TERMS, max_size=5),
    st.lists(st.sampled_from(["-all", "~all", "redirect=b.example"]), max_size=1),
)


@st.composite
def zones(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Zones in which terms find something now and then."""
    zone: dict[str, list[Any]] = {"e.example": [{"TXT": "<%{s}|%{i}|%{d}|%{H}|%{p}>"}]}
    for domain in DOMAINS:
        records: list[Any] = [{"TXT": draw(RECORDS)}] if draw(st.integers(0, 3)) else []
        records += [{"A": each} for each in draw(st.lists(ADDRESSES, max_size=2, unique=True))]
        records += [{"AAAA": each} for each in draw(st.lists(SIX, max_size=2, unique=True))]
        hosts = draw(st.lists(st.sampled_from(DOMAINS), max_size=3, unique=True))
        zone[domain] = records + [{"MX": [5, each]} for each in hosts]
    names = draw(st.lists(st.sampled_from(DOMAINS), max_size=3, unique=True))
    zone["1.2.0.192.in-addr.arpa"] = [{"PTR": each} for each in names]
    return zone


class ChanceTests(CheckCase):
    """Records and zones that chance makes."""

    @given(zones(), st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]))
    def test_questions_are_bounded(self, zone: Zone, address: str) -> None:
        """Whatever a domain publishes, the questions for it are bounded."""
        self.check(zone, address=address)
        self.assertLessEqual(self.resolver.asked.total(), MAX_QUESTIONS)

    def test_the_worst(self) -> None:
        """The most questions that we know how to cause."""
        zone = {
            "a.example": [{"TXT": "v=spf1 " + "mx:%{p}.m.example " * 10 + "-all exp=e.example"}],
            "unknown.m.example": [{"MX": [n, f"h{n}.example"]} for n in range(10)],
            "1.2.0.192.in-addr.arpa": [{"PTR": f"x{n}.b.example"} for n in range(40)],
        }
        self.check(zone)
        self.assertEqual(self.resolver.asked.total(), MAX_QUESTIONS)

    @given(zones(), st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]))
    def test_pyspf_agrees(self, zone: Zone, address: str) -> None:
        """pyspf says the same, where it counts what we count."""
        try:
            import spf
        except ImportError as error:
            raise SkipTest("pyspf is not installed") from error
        ours = self.check(zone, address=address)
        theirs, explanation = _by_pyspf(spf, zone, address)
        # It counts the hosts of mx that have no address, and names of clients, among void terms;
        # it allows no unknown modifier twice, and no record that includes itself.
        assume(not re.search("Void|x= MUST appear|trivial recursion", explanation))
        assume("nothing for" not in ours.problem)
        self.assertEqual(ours.result.value, theirs, f"{zone} {ours} {explanation}")
        if theirs == "fail":
            self.assertEqual(ours.explanation.lower(), explanation.lower())


def _by_pyspf(spf: Any, zone: Zone, address: str) -> tuple[str, str]:
    """Return the result and the explanation that pyspf finds."""
    resolver = ZoneResolver(zone)

    def look_up(name: str, kind: str, strict: bool = True, timeout: float = 0) -> list[Any]:
        if kind not in RecordType.__members__:
            return []
        found = result_of(resolver.query(name, RecordType[kind]))
        return [((name, kind), _for_pyspf(kind, each)) for each in found.records]

    original, spf.DNSLookup = spf.DNSLookup, look_up
    try:
        query = spf.query(
            i=address, s="alice@a.example", h="mail.a.example", receiver="mx.example.net"
        )
        query.set_default_explanation("")
        result, _, explanation = query.check()
    finally:
        spf.DNSLookup = original
    return result, re.sub(r"[^\x20-\x7e]", "?", explanation or "")


def _for_pyspf(kind: str, value: Any) -> Any:
    if kind == "TXT":
        return (value,)
    if kind == "AAAA":
        from ipaddress import IPv6Address

        return IPv6Address(value).packed
    return value
