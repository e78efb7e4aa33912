"""Queries, and responses of any quality."""

from __future__ import annotations

from random import Random

import dns.flags
import dns.message
import dns.name
import dns.rdata
from dns.rdatatype import RdataType
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.dns_answer import RecordType
from mta.resolver.chain import Chain, TooManyAliases
from mta.resolver.names import to_name, to_text
from mta.resolver.query import HEADER, Query, make_query
from mta.resolver.response import MalformedResponse, parse
from tests.resolver.network import reply, rrset, soa

NAME = dns.name.from_text("www.example.com")
KINDS = list(RecordType)


def query(edns: bool = True, validated: bool = False, any_case: bool = True) -> Query:
    """A query for MX records."""
    return make_query(
        NAME, RdataType.MX, Random(5), edns=edns, validated=validated, any_case=any_case
    )


def answer() -> bytes:
    """A long answer, with all that we read, compressed names, and records that we skip."""
    octets = dns.message.make_query("www.example.com", "MX", id=7, use_edns=0).to_wire()
    records = [
        rrset("www.example.com", "CNAME", "mail.example.com."),
        rrset("mail.example.com", "MX", "10 mx.example.com.", "20 mx.example.net."),
        rrset("mail.example.com", "RRSIG", "MX 8 3 60 20300101000000 20200101000000 1 x. AAAA"),
        rrset("mail.example.com", "TXT", '"some" "text"'),
    ]
    message = reply(octets, records, authority=[soa(60), rrset("com", "NS", "ns.com.")])
    message.additional = [rrset("mx.example.com", "A", "192.0.2.1")]
    return message.to_wire()


WHOLE = answer()


class QueryTests(SynchronousTestCase):
    """What goes out, and what fits it."""

    def test_form(self) -> None:
        """A question, recursion desired, and the rest as it is wanted."""
        for edns, validated in ((True, True), (True, False), (False, True), (False, False)):
            message = dns.message.from_wire(query(edns, validated).octets)
            self.assertEqual(message.question[0].name, NAME)
            self.assertEqual(message.edns, 0 if edns else -1)
            self.assertEqual(bool(message.flags & dns.flags.AD), validated)
            self.assertEqual(bool(message.ednsflags & dns.flags.DO), edns and validated)

    def test_case(self) -> None:
        """The letters of the name, and nothing else of it, are in random case."""
        names = {
            make_query(
                to_name(b"a-1.\xc4_[z"),
                RdataType.MX,
                Random(seed),
                edns=True,
                validated=True,
                any_case=True,
            ).question[:-4]
            for seed in range(100)
        }
        self.assertEqual(
            names,
            {bytes((3, a)) + b"-1\4\xc4_[" + bytes((z, 0)) for a in b"aA" for z in b"zZ"},
        )

    def test_fits(self) -> None:
        """The id, the flags and the question decide."""
        made = query()
        good = bytearray(reply(made.octets).to_wire())

        def changed(place: int, *octets: int) -> bytes:
            return bytes(good[:place]) + bytes(octets) + bytes(good[place + len(octets) :])

        self.assertTrue(made.fits(bytes(good)))
        self.assertTrue(made.keeps_case(bytes(good)))
        other_case = bytes(good[:HEADER]) + bytes(good[HEADER:]).swapcase()
        self.assertTrue(made.fits(other_case))
        self.assertFalse(made.keeps_case(other_case))
        type_of_question = HEADER + len(made.question) - 4
        for what, octets in {
            "nothing": b"",
            "less than a header": bytes(good[: HEADER - 1]),
            "a header": bytes(good[:HEADER]),
            "another id": changed(1, good[1] ^ 1),
            "a query": changed(2, good[2] & 0x7F),
            "another opcode": changed(2, good[2] | 0x28),
            "no question": changed(5, 0),
            "two questions": changed(5, 2),
            "256 questions": changed(4, 1, 0),
            "another letter": changed(HEADER + 1, ord("x")),
            "another length": changed(HEADER, 4),
            "another type": changed(type_of_question, 0, 1),
            "another class": changed(type_of_question + 2, 0, 3),
        }.items():
            self.assertFalse(made.fits(octets), what)

    def test_codes_without_a_question(self) -> None:
        """A server that can't read a query need not repeat the question, but has no answer."""
        made = query()
        for code, fits in ((0, False), (1, True), (2, True), (3, False), (4, True), (5, True)):
            octets = made.octets[:2] + bytes((0x81, 0x80 | code)) + bytes(8)
            self.assertEqual(made.fits(octets), fits, code)
            self.assertTrue(made.keeps_case(octets))


class ResponseTests(SynchronousTestCase):
    """Reading must not fail but in one way."""

    def test_whole(self) -> None:
        """All that we ask for is there."""
        response = parse(WHOLE, RdataType.MX)
        self.assertEqual([record.kind for record in response.answer], [5, 15, 15])
        self.assertTrue(response.has_edns)
        self.assertFalse(response.is_referral)
        assert response.authority is not None
        self.assertEqual(response.authority.data.minimum, 60)
        self.assertTrue(parse(WHOLE + b"more", RdataType.MX).is_answer)

    def test_cut_anywhere(self) -> None:
        """What is missing might be what was asked for."""
        without_edns = WHOLE[:10] + b"\0\1" + WHOLE[12:-11]
        for octets in (WHOLE, without_edns):
            self.assertTrue(parse(octets, RdataType.MX).is_answer)
            for end in range(len(octets)):
                with self.assertRaises(MalformedResponse):
                    parse(octets[:end], RdataType.MX)

    def test_other_classes(self) -> None:
        """Only the Internet has mail."""
        question = b"\3www\7example\3com\0\0\x0f\0\1"
        for rdclass, count in ((1, 1), (3, 0)):
            record = b"\xc0\x0c\0\x0f" + bytes((0, rdclass)) + b"\0\0\0\x3c\0\3\0\1\0"
            octets = WHOLE[:6] + b"\0\1\0\0\0\0" + question + record
            self.assertEqual(len(parse(octets, RdataType.MX).answer), count)

    def test_extended_codes(self) -> None:
        """The OPT record has the upper bits of the code."""
        made = query()
        message = reply(made.octets, code=16)
        self.assertEqual(parse(message.to_wire(), RdataType.MX).rcode, 16)

    def test_long_times(self) -> None:
        """A time to live beyond 31 bits is none (RFC 2181 section 8)."""
        for ttl, expected in ((2**31 - 1, 2**31 - 1), (2**31, 0), (2**32 - 1, 0)):
            octets = WHOLE[:HEADER] + (
                b"\3www\7example\3com\0\0\x0f\0\1"
                b"\xc0\x0c\0\x0f\0\1" + ttl.to_bytes(4, "big") + b"\0\3\0\1\0"
            )
            octets = octets[:6] + b"\0\1\0\0\0\0" + octets[HEADER:]
            [record] = parse(octets, RdataType.MX).answer
            self.assertEqual(record.ttl, expected)

    def test_types_that_strangers_make_up(self) -> None:
        """They leave nothing behind."""
        before = len(dns.rdata._rdata_classes)
        for kind in range(300, 400):
            octets = (
                WHOLE[:6]
                + b"\0\1\0\1\0\1"
                + b"\0\0\x0f\0\1"
                + 3 * (b"\0" + kind.to_bytes(2, "big") + kind.to_bytes(2, "big") + bytes(6))
            )
            self.assertEqual(parse(octets, RdataType.MX).answer, ())
        self.assertEqual(len(dns.rdata._rdata_classes), before)

    def test_pointers(self) -> None:
        """A name that points at itself, forward, or in a circle can't be read."""
        for owner in (b"\xc0\x21", b"\xc0\x2f", b"\xff\xff", b"\1a\xc0\x21", b"\x80", b"\x40"):
            question = b"\3www\7example\3com\0\0\x0f\0\1"
            octets = WHOLE[:6] + b"\0\1\0\0\0\0" + question
            assert len(octets) == 0x21
            octets += owner + b"\0\x0f\0\1\0\0\0\x3c\0\3\0\1\0"
            with self.assertRaises(MalformedResponse, msg=owner):
                parse(octets, RdataType.MX)

    @given(st.binary(max_size=600), st.sampled_from(KINDS))
    @example(bytes(12), RecordType.MX)
    def test_random_octets(self, octets: bytes, kind: RecordType) -> None:
        """Octets by chance."""
        self.read(octets, kind)

    @given(
        st.lists(
            st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8
        ),
        st.sampled_from(KINDS),
    )
    def test_changed_octets(self, changes: list[tuple[int, int]], kind: RecordType) -> None:
        """A good answer in which some octets are others."""
        octets = bytearray(WHOLE)
        for place, octet in changes:
            octets[place] = octet
        self.read(bytes(octets), kind)

    @given(
        st.integers(0, 255),
        st.sampled_from(KINDS),
        st.binary(max_size=80),
        st.sampled_from([b"\xc0\x0c", b"\3www\7example\3com\0", b"\0"]),
    )
    def test_any_data(self, code: int, kind: RecordType, data: bytes, owner: bytes) -> None:
        """A record of the type that was asked for, with any data."""
        wire = RdataType[kind.name].to_bytes(2, "big")
        head = b"\0\7\x81" + bytes((code,)) + b"\0\1\0\1\0\0\0\0"
        question = b"\3www\7example\3com\0" + wire + b"\0\1"
        record = owner + wire + b"\0\1\0\0\0\x3c" + len(data).to_bytes(2, "big") + data
        self.read(head + question + record, kind)

    def read(self, octets: bytes, kind: RecordType) -> None:
        """Read octets to the end, as a resolver does."""
        chain = Chain(NAME, kind)
        try:
            response = parse(octets, chain.wire_type)
            chain.follow(response)
        except (MalformedResponse, TooManyAliases):
            return
        query().fits(octets)
        query().keeps_case(octets)


class NameTests(SynchronousTestCase):
    """Names, to text and back."""

    @given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5))
    def test_no_name_looks_like_another(self, labels: list[bytes]) -> None:
        """Dots in labels, and what is not printed, are escaped."""
        text = to_text(dns.name.Name([*labels, b""]))
        self.assertTrue(text.isascii() and text.isprintable())
        self.assertEqual(
            dns.name.from_text(text).canonicalize().labels[:-1], tuple(map(bytes.lower, labels))
        )
