"""Which hosts a hop has, and that we are none of them."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from unittest.mock import MagicMock, patch

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.delivery import own_host
from mta.delivery.hosts import Host, HostFinder
from mta.delivery.own_host import OwnHost, is_on_interface, is_private
from mta.interfaces import IOwnHost
from mta.mail import Agent, Hop
from mta.queued import HopFailure
from mta.testing import FakeResolver
from tests.next_hops import DOMAIN

MX = Hop(Agent.MX, DOMAIN)
INTERFACE, NAT = "198.51.100.1", "198.51.100.2"
OURS = (  # each reaches this host, as soon as somebody listens there
    *("127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "0.0.0.1", "::", "::1"),
    *("::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:0.0.0.0"),
    *(INTERFACE, f"::ffff:{INTERFACE}", "2001:db8::1", "2001:db8:0::1", NAT, f"::ffff:{NAT}"),
)


def our_host() -> OwnHost:
    """A host with two addresses of its own and one behind NAT."""
    return OwnHost("Us.example", [NAT], lambda address: address in (INTERFACE, "2001:db8::1"))


async def _listed(hosts: AsyncIterator[Host]) -> list[Host]:
    return [host async for host in hosts]


class HostsTestCase(SynchronousTestCase):
    """A finder with a table for a DNS."""

    def found(
        self,
        hop: Hop,
        records: Sequence[tuple[int, str]] = (),
        known: Mapping[str, Sequence[str]] | None = None,
        *,
        private: bool = True,
    ) -> list[Host]:
        """The hosts of a hop.  Raises HopFailure."""
        self.names = FakeResolver({DOMAIN: records}, known or {})
        finder = HostFinder(self.names, our_host(), private, shuffle=lambda records: None)
        found: list[Host] = self.successResultOf(
            Deferred.fromCoroutine(_listed(finder.hosts(hop))).addErrback(self._fail)
        )
        return found

    def _fail(self, failure: object) -> list[Host]:
        self.failure = failure
        return []

    def refused(self, hop: Hop, *records: tuple[int, str], **known: Sequence[str]) -> str:
        """Why there is no host."""
        self.assertEqual(self.found(hop, records, known), [])
        failure = self.failure
        failure.trap(HopFailure)  # type: ignore[attr-defined]
        return str(failure.value.outcome.reply)[:9]  # type: ignore[attr-defined]


class LoopTests(HostsTestCase):
    """RFC 5321 section 5.1: a host that finds itself cuts the list off there."""

    def test_our_addresses(self) -> None:
        """By whichever of them a stranger leads us home."""
        for address in OURS:
            self.assertEqual(self.refused(MX, (10, "mx"), mx=[address]), "554 5.4.6", address)
            known = {"mx": ["192.0.2.9", address]}
            self.assertEqual(self.refused(MX, (10, "mx"), **known), "554 5.4.6", address)
            self.assertEqual(self.refused(Hop(Agent.MX, DOMAIN), **{DOMAIN: [address]})[:3], "554")

    def test_addresses_of_ipv4_in_others(self) -> None:
        """Whatever IPv6 wraps around one of ours."""
        for inner in ("127.0.0.1", "0.0.0.0", "192.0.2.77"):
            host = OwnHost("us.example", ["192.0.2.77"], lambda _: False)
            for prefix in ("::ffff:", "::", "::ffff:0:", "64:ff9b::", "64:ff9b:1::"):
                self.assertTrue(host.is_at(prefix + inner), prefix + inner)
        for address in ("64:ff9b::192.0.2.78", "2001:db8::192.0.2.77", "64:ff9b:2::192.0.2.77"):
            self.assertFalse(host.is_at(address), address)

    def test_networks_behind_6to4(self) -> None:
        """What is sent to one arrives at the address of IPv4 that it is made of."""
        host = OwnHost("us.example", ["192.0.2.77", "2002:c633:6407::5"], lambda _: False)
        for address in ("2002:c000:24d::", "2002:c000:24d:1::25", "2002:7f00:1::1", "2002::1"):
            self.assertTrue(host.is_at(address), address)
        self.assertTrue(host.is_at("2002:c633:6407::5"), "an address of ours")
        for address in ("2002:c000:24e::1", "2002:c633:6407::6", "198.51.100.7", "2003:c000:24d::"):
            self.assertFalse(host.is_at(address), address)

    def test_our_names(self) -> None:
        """They are not even looked up."""
        for name in ("us.example", "US.example", "localhost", "x.localhost", "us.example."):
            self.assertEqual(self.refused(MX, (10, name), mx=["192.0.2.1"]), "554 5.4.6", name)
            self.assertEqual(self.names.asked, [])

    def test_literals(self) -> None:
        """An address literal leads here as an MX record does."""
        for address in OURS:
            literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
            self.assertEqual(self.refused(Hop(Agent.MX, literal)), "554 5.4.6", literal)
        literal = Hop(Agent.MX, "[IPv6:2001:db8::2]")
        self.assertEqual(self.found(literal), [Host("2001:db8::2", ["2001:db8::2"])])

    def test_the_worse_are_cut_off(self) -> None:
        """And the equal ones, whoever comes first among them; the better ones stay."""
        known = {"a": ["192.0.2.1"], "b": ["192.0.2.2"], "c": ["192.0.2.3"], "us": [INTERFACE]}
        records = [(10, "a"), (20, "b"), (20, "us"), (30, "c")]
        self.assertEqual(self.found(MX, records, known), [Host("a", ["192.0.2.1"])])
        self.assertNotIn("c", self.names.asked)
        self.assertEqual(self.refused(MX, *records[1:], **known), "554 5.4.6")

    def test_the_configuration_may(self) -> None:
        """What the postmaster wrote is meant, and what is on another port is another server."""
        for agent in (Agent.SMTP, Agent.LMTP):
            hop = Hop(agent, "mx", 25)
            found = self.found(hop, known={"mx": ["127.0.0.1"]})
            self.assertEqual(found, [Host("mx", ["127.0.0.1"])])
        found = self.found(Hop(Agent.MX, DOMAIN, 2525), [(1, "mx")], {"mx": ["127.0.0.1"]})
        self.assertEqual(found, [Host("mx", ["127.0.0.1"])])


class PrivateTests(HostsTestCase):
    """What a stranger's MX records may reach in the networks around us."""

    def test_not_allowed(self) -> None:
        """Only what is public is used then."""
        known = {"a": ["10.0.0.1", "fd00::1"], "b": ["192.168.0.1", "192.0.2.1"]}
        a, b = self.found(MX, [(1, "a"), (2, "b")], known, private=False)
        assert a.failure is not None
        self.assertEqual(str(a.failure.reply)[:9], "550 5.4.4")
        self.assertEqual(b, Host("b", ["192.0.2.1"]))
        [literal] = self.found(Hop(Agent.MX, "[10.0.0.1]"), private=False)
        self.assertEqual(literal.addresses, ())
        [configured] = self.found(Hop(Agent.SMTP, "a", 25), known=known, private=False)
        self.assertEqual(configured.addresses, known["a"])

    def test_networks(self) -> None:
        """RFC 1918, RFC 4193, those of one site or link, and what leads there."""
        for address in ("10.1.2.3", "172.31.0.1", "192.168.9.9", "fd12::1", "fec0::1"):
            self.assertTrue(is_private(address), address)
        for address in ("::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "::10.1.2.3", "169.254.1.1"):
            self.assertTrue(is_private(address), address)
        for address in ("fe80::1", "2002:a01:203::1", "64:ff9b:1::10.1.2.3", "febf::1"):
            self.assertTrue(is_private(address), address)
        for address in ("192.0.2.1", "172.32.0.1", "2001:db8::1", "2002:c000:201::1"):
            self.assertFalse(is_private(address), address)
        for address in ("100.64.0.1", "64:ff9b:1::192.0.2.1"):
            self.assertFalse(is_private(address), address)


class OwnHostTests(SynchronousTestCase):
    """What the system says of addresses."""

    def test_interface(self) -> None:
        """It is one."""
        self.assertTrue(verifyObject(IOwnHost, our_host()))

    def test_addresses_of_this_machine(self) -> None:
        """One that a socket can have is ours; others are not, nor those of groups."""
        self.assertTrue(is_on_interface("127.0.0.1"))
        for address in ("192.0.2.1", "2001:db8::53", "8.8.8.8"):
            self.assertFalse(is_on_interface(address), address)
        own = OwnHost("us.example", is_on_interface=lambda address: True)
        self.assertFalse(own.is_at("224.0.0.1"))

    def test_where_any_address_can_be_bound(self) -> None:
        """Then that is no proof."""

        class Willing(socket.socket):
            def bind(self, address: object) -> None:
                """Take it."""

        with patch.object(own_host.socket, "socket", Willing):
            self.assertFalse(is_on_interface("198.51.100.7"))

    def test_no_socket(self) -> None:
        """Without free descriptors no address is taken for ours, for which mail is returned."""
        full = OSError(errno.EMFILE, "Too many open files")
        willing = MagicMock()
        for made in ([full], [willing, full]):
            with patch.object(own_host.socket, "socket", side_effect=made):
                self.assertFalse(is_on_interface("198.51.100.7"))
