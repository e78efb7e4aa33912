"""The addresses that a report may be sent to."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.authentication.reports.destinations import Destinations, destinations
from mta.dns_answer import Answer, RecordType
from mta.interfaces import ResolutionFailed
from mta.testing import FakeResolver

DOMAIN = "blue.example.com"


class Resolver(FakeResolver):
    """A DNS with texts; names in `broken` get no answer."""

    def __init__(self, texts: dict[str, list[bytes]], *broken: str) -> None:
        super().__init__({}, {})
        self.answers = {(name, RecordType.TXT): Answer(each) for name, each in texts.items()}
        self.broken = broken

    async def query(self, name: str, kind: RecordType) -> Answer:
        """The answer, or none."""
        self.asked.append(name)
        if name in self.broken:
            raise ResolutionFailed(name)
        return await super().query(name, kind)


RECORDS = {
    "_dmarc.example.com": [b"v=DMARC1; p=none"],
    f"{DOMAIN}._report._dmarc.red.example.net": [b"other", b"v=DMARC1"],
    f"{DOMAIN}._report._dmarc.moved.example.net": [b"v=DMARC1; rua=mailto:new@moved.example.net"],
    f"{DOMAIN}._report._dmarc.away.example.net": [b"v=DMARC1; rua=mailto:a@victim.example"],
    f"{DOMAIN}._report._dmarc.no.example.net": [b"v=spf1 -all"],
}


class DestinationTests(SynchronousTestCase):
    """Which of the wished addresses count."""

    def found(self, *rua: str, resolver: Resolver | None = None) -> Destinations:
        """What is found for these URIs."""
        self.resolver = resolver or Resolver(RECORDS)
        looking = destinations(self.resolver, DOMAIN, rua)
        return self.successResultOf(Deferred.fromCoroutine(looking))

    def addresses(self, *rua: str) -> list[str]:
        """The addresses that count, of these."""
        found = self.found(*(f"mailto:{each}" for each in rua))
        self.assertTrue(found.is_complete)
        return [str(each) for each in found.of(0)]

    def test_same_organisation(self) -> None:
        """It needs no permission: the domain itself, the one above, another below that."""
        for address in (f"d@{DOMAIN}", "d@example.com", "d@reports.example.com"):
            self.assertEqual([address], self.addresses(address))
        self.addresses(f"d@{DOMAIN}")
        self.assertEqual([], self.resolver.asked)

    def test_others(self) -> None:
        """A stranger must have said that it takes reports on this domain."""
        self.assertEqual(["d@red.example.net"], self.addresses("d@red.example.net"))
        for address in ("d@no.example.net", "d@victim.example", "d@example.net"):
            self.assertEqual([], self.addresses(address), address)

    def test_other_address(self) -> None:
        """It may name another address of its own, but none of others."""
        self.assertEqual(["new@moved.example.net"], self.addresses("d@moved.example.net"))
        self.assertEqual([], self.addresses("d@away.example.net"))

    def test_several(self) -> None:
        """All that may be used are, each once."""
        self.assertEqual(
            ["d@example.com", "d@red.example.net"],
            self.addresses(
                "d@example.com", "x@victim.example", "d@red.example.net", "d@example.com"
            ),
        )

    def test_forms(self) -> None:
        """Only mail, in any form that a URI may have."""
        for uri, expected in (
            ("mailto:d%2Bx@example.com", ["d+x@example.com"]),
            ("MAILTO:d@example.com?subject=x", ["d@example.com"]),
            ("https://example.com/reports", []),
            ("mailto:%C3%BC@example.com", []),
            ("mailto:d@", []),
            ("mailto:a@b@example.com", []),
            ("mailto:d@example.com%0D%0ABcc:x@victim.example", []),
        ):
            self.assertEqual(expected, [str(each) for each in self.found(uri).of(0)], uri)

    def test_limits(self) -> None:
        """By the URI, in octets or powers of 1024; another address has its own."""
        resolver = Resolver(
            {
                **RECORDS,
                f"{DOMAIN}._report._dmarc.moved.example.net": [
                    b"v=DMARC1; rua=mailto:new@moved.example.net!1k"
                ],
            }
        )
        for uri, expected in (
            ("mailto:d@example.com", float("inf")),
            ("mailto:d@example.com!900", 900),
            ("mailto:d@example.com!10K", 10 * 2**10),
            ("mailto:d@example.com!50m", 50 * 2**20),
            ("mailto:d@example.com!2g", 2**31),
            ("mailto:d@red.example.net!3t", 3 * 2**40),
            ("mailto:d@moved.example.net!3t", 1024),
            ("mailto:d!1k@example.com", float("inf")),
        ):
            found = self.found(uri, resolver=resolver)
            self.assertEqual([expected], list(found.max_sizes.values()), uri)
        found = self.found("mailto:a@example.com!10", "mailto:b@example.com")
        self.assertEqual([1, 2], [len(found.of(size)) for size in (11, 10)])

    def test_long_names(self) -> None:
        """A name that the DNS has no room for permits nothing."""
        host = ".".join(["a" * 60] * 4)
        self.assertEqual([], self.addresses(f"d@{host}"))

    def test_no_answer(self) -> None:
        """The others are known all the same, and that it may be asked again."""
        name = f"{DOMAIN}._report._dmarc.red.example.net"
        found = self.found(
            "mailto:d@red.example.net", "mailto:d@example.com", resolver=Resolver(RECORDS, name)
        )
        self.assertEqual(["d@example.com"], [str(each) for each in found.of(0)])
        self.assertFalse(found.is_complete)
