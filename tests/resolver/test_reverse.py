"""The names of addresses."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from mta.dns_answer import RecordType, ReverseName
from mta.interfaces import IReverseNames
from mta.resolver import ReverseNames
from mta.resolver.reverse import MAX_NAMES, MAX_SECONDS
from tests.resolver.test_resolver import ResolverCase

FOUR, SIX = "192.0.2.7", "2001:db8::7"
FOUR_POINTER = "7.2.0.192.in-addr.arpa"
SIX_POINTER = ".".join("7" + "0" * 23 + "8bd01002") + ".ip6.arpa"


class ReverseTests(ResolverCase):
    """Names that the address has, and names that have the address."""

    def setUp(self) -> None:
        super().setUp()
        self.reverse = ReverseNames(self.resolver, self.network)

    def of(self, address: str = FOUR) -> ReverseName:
        """The names of an address."""
        names: ReverseName = self.result(self.reverse.of(address))
        return names

    def knows(self, name: str, kind: RecordType, *values: str) -> None:
        """Put records into the zone."""
        self.zone.add(name, kind.name, *values)

    def test_interface(self) -> None:
        """It is one."""
        self.assertTrue(verifyObject(IReverseNames, self.reverse))

    def test_confirmed(self) -> None:
        """In both families."""
        self.knows(FOUR_POINTER, RecordType.PTR, "four.example.")
        self.knows("four.example", RecordType.A, "192.0.2.1", FOUR)
        self.knows(SIX_POINTER, RecordType.PTR, "six.example.")
        self.knows("six.example", RecordType.AAAA, SIX)
        self.assertEqual(self.of(FOUR), ("four.example", "four.example"))
        self.assertEqual(self.of(SIX), ("six.example", "six.example"))
        asked = self.questions
        self.assertEqual(self.of(SIX), ("six.example", "six.example"))
        self.assertEqual(self.questions, asked)

    def test_not_confirmed(self) -> None:
        """The name has another address, none, or no answer comes."""
        self.knows(FOUR_POINTER, RecordType.PTR, "paypal.example.")
        self.knows("paypal.example", RecordType.A, "192.0.2.1")
        self.assertEqual(self.of(), ("paypal.example", ""))
        self.knows(SIX_POINTER, RecordType.PTR, "nowhere.example.")
        self.assertEqual(self.of(SIX), ("nowhere.example", ""))

    def test_no_name(self) -> None:
        """Nothing is asked for clients without an address; the own host is known."""
        self.assertEqual(self.of(), ("", ""))
        self.assertEqual(self.questions, 1)
        for address in ("unix", "unknown", ""):
            self.assertEqual(self.of(address), ("", ""))
        for address in ("127.0.0.1", "::1"):
            self.assertEqual(self.of(address), ("localhost", "localhost"))
        self.assertEqual(self.questions, 1)

    def test_many_names(self) -> None:
        """Ten are looked at."""
        for count, confirmed in ((MAX_NAMES - 1, "right.example"), (MAX_NAMES, "")):
            address = f"192.0.2.{count}"
            wrong = [f"wrong{number}.example." for number in range(count)]
            pointer = f"{count}.2.0.192.in-addr.arpa"
            self.knows(pointer, RecordType.PTR, *wrong, "right.example.")
            self.knows("right.example", RecordType.A, "192.0.2.9", "192.0.2.10")
            self.assertEqual(self.of(address), ("wrong0.example", confirmed))

    def test_what_is_no_name_of_a_host(self) -> None:
        """It would end up in header fields."""
        self.knows(FOUR_POINTER, RecordType.PTR, r"a\010b\041.example.", r"b\040c.example.")
        self.assertEqual(self.of(), ("", ""))

    def test_silence(self) -> None:
        """Nobody waits for longer than some seconds."""
        del self.network.servers[self.server]
        looking = Deferred.fromCoroutine(self.reverse.of(FOUR))
        self.network.advance(MAX_SECONDS - 0.1)
        self.assertNoResult(looking)
        self.network.advance(0.2)
        self.assertEqual(self.successResultOf(looking), ("", ""))
