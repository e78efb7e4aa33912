"""Name servers of the configuration and of resolv.conf(5)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mta.resolver.resolv_conf import (
    DEFAULT_TIMEOUTS,
    ConfiguredServers,
    Server,
    Servers,
    parse_resolv_conf,
)

HERE = Server("127.0.0.1", 53, True)


class FileTests(SynchronousTestCase):
    """What matters of the file."""

    def test_options(self) -> None:
        """Times, order, and trust; all others are passed over."""
        for options, expected in [
            ("", Servers([HERE])),
            ("edns0 ndots:3 use-vc", Servers([HERE])),
            ("rotate", Servers([HERE], DEFAULT_TIMEOUTS, True)),
            ("timeout:2", Servers([HERE], [2, 2])),
            ("attempts:3", Servers([HERE], [5, 5, 5])),
            ("timeout:1 attempts:1", Servers([HERE], [1])),
            ("timeout:99 attempts:99", Servers([HERE], [30] * 5)),
            ("timeout:0 attempts:0", Servers([HERE], [1])),
            ("timeout:x attempts:", Servers([HERE], [5, 5])),
            ("timeout:" + "9" * 9999, Servers([HERE], [5, 5])),
        ]:
            self.assertEqual(parse_resolv_conf(f"options {options}\n"), expected, options[:30])

    def test_trust(self) -> None:
        """Servers on this host are trusted, where there are no others that we might ask."""
        for addresses, is_trusted in [
            (["127.0.0.1"], True),
            (["127.0.0.53", "::1"], True),
            (["192.0.2.1"], False),
            (["127.0.0.1", "192.0.2.1"], False),
            (["127.0.0.11"], False),
        ]:
            text = "".join(f"nameserver {address}\n" for address in addresses)
            for listed in (
                ConfiguredServers([(address, 53) for address in addresses]).current(),
                parse_resolv_conf(text),
            ):
                found = {server.is_trusted for server in listed.servers}
                self.assertEqual(found, {is_trusted}, addresses)

    def test_servers(self) -> None:
        """All that are named, in their order; those that can't be read are passed over."""
        text = "nameserver 192.0.2.1\nnameserver x\nnameserver\n;nameserver 192.0.2.2\n"
        text += "nameserver\t2001:DB8::1\nnameserver fe80::1%eth0\noptions trust-ad\n"
        servers = parse_resolv_conf(text).servers
        expected = [Server(each, 53, True) for each in ("192.0.2.1", "2001:db8::1")]
        self.assertEqual(servers, [*expected, Server("fe80::1%eth0", 53, True)])

    def test_unspecified(self) -> None:
        """The address of nothing is this host, whose answers come from loopback."""
        for text, address in (("0.0.0.0", "127.0.0.1"), ("::", "::1")):
            self.assertEqual(Server.at(text), Server(address, 53))
