"""A resolver among servers that send anything."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mta.dns_answer import Answer, RecordType
from mta.interfaces import ResolutionFailed
from mta.resolver import Resolver
from tests.resolver.network import Network, reply, rrset, soa

NOWHERE = Path("/nonexistent/hosts")
RECORDS = [
    rrset("example.com", "CNAME", "mail.example.com."),
    rrset("mail.example.com", "MX", "10 mx.example.com.", "20 mx.example.net."),
    rrset("mail.example.com", "TXT", '"some" "text"'),
]
# What becomes of a response: octets that are others, and where it ends.
CHANGES = st.tuples(
    st.lists(st.tuples(st.integers(2, 250), st.integers(0, 255)), max_size=6),
    st.integers(0, 300),
)


class HostileTests(SynchronousTestCase):
    """Whatever comes is an answer or a failure, and nothing stays open."""

    @given(st.lists(CHANGES, min_size=1, max_size=6), st.sampled_from(list(RecordType)))
    def test_changed_responses(
        self, changes: list[tuple[list[tuple[int, int]], int]], kind: RecordType
    ) -> None:
        """Responses of which octets are changed, or missing, by datagram and connection."""
        network = Network()
        left = list(changes)

        def script(octets: bytes, via: str) -> Iterable[bytes]:
            response = bytearray(reply(octets, RECORDS, authority=[soa(60)]).to_wire())
            octets_changed, end = left.pop() if left else ([], len(response))
            for place, octet in octets_changed:
                if place < len(response):
                    response[place] = octet
            yield bytes(response[:end])

        network.servers = {"192.0.2.1": script, "127.0.0.1": script}
        for server in network.servers:
            resolver = Resolver(network, [(server, 53)] * 2, NOWHERE)
            asking = Deferred.fromCoroutine(resolver.query("example.com", kind))
            for _ in range(61):
                network.advance(1)
            result: object = asking.result
            asking.addErrback(lambda _: None)
            if not isinstance(result, Answer):
                assert isinstance(result, Failure) and result.check(ResolutionFailed), result
                self.assertNotIn("fault of our own", result.getErrorMessage())
        self.assertEqual((network.open_ports, network.getDelayedCalls()), (0, []))
