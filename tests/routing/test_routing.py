"""Forward-path to hop."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.delivery.own_host import OwnHost
from mta.interfaces import IRouter
from mta.mail import Agent, Hop, Mailbox, canonical_domain
from mta.routing import MAX_ADDRESSES, MAX_ALIASES, Router, router
from mta.settings import Domain, Forward
from mta.smtp import srs
from mta.smtp.errors import Refusal
from mta.smtp.srs import SenderRewriting

MAILDIR = Hop(Agent.MAILDIR, "/mail/{domain}/{local}")
MX = Hop(Agent.MX)
HOLD = Hop(Agent.HOLD, "office")
SMART_HOST = Hop(Agent.SMTP, "10.0.0.5", 2525)
LMTP = Hop(Agent.LMTP, "10.0.0.6", 24)


def mailbox(address: str) -> Mailbox:
    """The address that is written so."""
    local_part, _, domain = address.rpartition("@") if "@" in address else (address, "", "")
    return Mailbox(local_part, domain)


def domain(name: str = "example.com", deliver: Hop = MAILDIR, **keys: Any) -> Domain:
    """A domain as the configuration has it; aliases are written as text."""
    aliases = {
        alias: tuple(map(mailbox, targets.split()))
        for alias, targets in keys.pop("aliases", {}).items()
    }
    mailboxes = keys.pop("mailboxes", ())
    if mailboxes is not None:
        mailboxes = frozenset(mailboxes)
    if "catch_all" in keys:
        keys["catch_all"] = mailbox(keys["catch_all"])
    return Domain(name, deliver, mailboxes=mailboxes, aliases=aliases, **keys)


class RouterTestCase(SynchronousTestCase):
    """What the tests share: a router, and what it answers."""

    hostname = "mail.example.com"

    def given(
        self,
        *domains: Domain,
        routes: dict[str, Hop] | None = None,
        default: Hop = MX,
        senders: dict[str, Hop] | None = None,
    ) -> None:
        """Make the router."""
        self.router = Router(
            self.hostname, {each.name: each for each in domains}, routes or {}, default, senders
        )

    def route(self, address: str) -> list[tuple[Mailbox, Hop]]:
        """Where an address goes."""
        return list(self.router.route(mailbox(address)))

    def finals(self, address: str) -> list[str]:
        """What an address stands for."""
        return [str(final) for final, _ in self.route(address)]

    def hop(self, address: str) -> Hop:
        """The only hop of an address."""
        ((_, hop),) = self.route(address)
        return hop

    def refused(self, address: str) -> str:
        """The enhanced code of the refusal."""
        return self.assertRaises(Refusal, self.route, address).reply.enhanced


class DomainTests(RouterTestCase):
    """Domains that we are the last stop for."""

    def setUp(self) -> None:
        self.given(domain(mailboxes=["alice", "bob", "a+b"]), domain("any.example", mailboxes=None))

    def test_longest_name(self) -> None:
        """Where anybody has a mailbox, nobody has one with a name that is too long for it."""
        for name in ("a" * 64, "é" * 32, "a" * 64 + "+" + "x" * 100):
            self.assertTrue(self.finals(f"{name}@any.example"))
        for name in ("a" * 65, "é" * 33, "SRS0=" + "a" * 200):
            self.assertEqual(self.refused(f"{name}@any.example"), "5.1.1")

    def test_interface(self) -> None:
        """The router is one."""
        self.assertTrue(verifyObject(IRouter, self.router))

    def test_mailbox(self) -> None:
        """A mailbox goes where its domain delivers, whatever the case."""
        expected = [(Mailbox("alice", "example.com"), MAILDIR)]
        self.assertEqual(self.route("alice@example.com"), expected)
        self.assertEqual(self.route("Alice@EXAMPLE.com"), expected)

    def test_nobody(self) -> None:
        """Nobody else is there."""
        refusal = self.assertRaises(Refusal, self.route, "carol@example.com")
        self.assertEqual(str(refusal.reply), "550 5.1.1 No such user here")

    def test_is_ours(self) -> None:
        """Ours is what is configured; not what is below it, and no address literal."""
        self.assertTrue(self.router.is_ours("example.com"))
        for other in ("sub.example.com", "[127.0.0.1]", "", "com"):
            self.assertFalse(self.router.is_ours(other), other)

    def test_subaddress(self) -> None:
        """What follows the separator is a detail for the reader."""
        self.assertEqual(self.finals("Alice+news+2@example.com"), ["alice@example.com"])
        self.assertEqual(self.finals("dave+x@any.example"), ["dave@any.example"])

    def test_mailbox_with_separator(self) -> None:
        """A mailbox that has the separator in its name is meant by the whole."""
        self.assertEqual(self.finals("a+b@example.com"), ["a+b@example.com"])

    def test_empty_name(self) -> None:
        """Where nothing stands before the separator, it is no separator."""
        self.assertEqual(self.finals("+x@any.example"), ["+x@any.example"])

    def test_no_subaddress(self) -> None:
        """The separator can be switched off."""
        self.given(domain(mailboxes=["alice"], subaddress=""))
        self.assertEqual(self.refused("alice+x@example.com"), "5.1.1")

    def test_any(self) -> None:
        """A domain may take every local part."""
        self.assertEqual(self.finals("Whoever@any.example"), ["whoever@any.example"])

    def test_catch_all(self) -> None:
        """What nobody has goes to the catch-all, and may be elsewhere."""
        self.given(domain(mailboxes=["alice"], catch_all="x@partner.example"))
        self.assertEqual(self.finals("alice@example.com"), ["alice@example.com"])
        self.assertEqual(self.finals("bob@example.com"), ["x@partner.example"])

    def test_further_hop(self) -> None:
        """A domain that goes on elsewhere keeps addresses as the sender wrote them."""
        for mailboxes in (None, ()):
            self.given(domain("office.example", HOLD, mailboxes=mailboxes))
            self.assertEqual(
                self.route("Bob+x@OFFICE.example"), [(Mailbox("Bob+x", "office.example"), HOLD)]
            )

    def test_further_hop_with_mailboxes(self) -> None:
        """Where its mailboxes are named, others are refused here."""
        self.given(domain("office.example", LMTP, mailboxes=["bob"]))
        self.assertEqual(self.finals("bob+x@office.example"), ["bob+x@office.example"])
        self.assertEqual(self.refused("eve@office.example"), "5.1.1")

    def test_maildir_without_mailboxes(self) -> None:
        """A Maildir domain that names nobody has nobody."""
        self.given(domain())
        self.assertEqual(self.refused("alice@example.com"), "5.1.1")

    def test_mx(self) -> None:
        """We may stand before the MX hosts of a domain of ours."""
        self.given(domain("backup.example", Hop(Agent.MX), mailboxes=None))
        self.assertEqual(self.hop("a@backup.example"), Hop(Agent.MX, "backup.example"))

    def test_internationalised(self) -> None:
        """U-labels and A-labels are the same domain; ß is a letter of its own."""
        self.given(domain("xn--bcher-kva.example", mailboxes=["alice"]))
        for name in ("bücher.example", "BÜCHER.example", "xn--bcher-kva.example"):
            self.assertEqual(self.finals(f"alice@{name}"), ["alice@xn--bcher-kva.example"])
        self.given(domain("strasse.example", mailboxes=["alice"]))
        self.assertFalse(self.router.is_ours(canonical_domain("straße.example")))

    def test_impossible_domain(self) -> None:
        """A name that no label can be made of is somebody else's problem."""
        self.assertEqual(self.hop("a@\u2025.example"), Hop(Agent.MX, "\u2025.example"))


class AliasTests(RouterTestCase):
    """Names that stand for others."""

    def test_list(self) -> None:
        """An alias stands for several, here and elsewhere, none twice."""
        self.given(
            domain(
                mailboxes=["alice", "bob"],
                aliases={
                    "sales": "alice@example.com team@example.com carol@partner.example",
                    "team": "bob@example.com Alice+x@example.com",
                },
            )
        )
        self.assertEqual(
            self.route("Sales+x@example.com"),
            [
                (mailbox("alice@example.com"), MAILDIR),
                (mailbox("bob@example.com"), MAILDIR),
                (mailbox("carol@partner.example"), Hop(Agent.MX, "partner.example")),
            ],
        )

    def test_resolved_once(self) -> None:
        """Whatever name of a list is asked for, and by whom, its members are found once."""
        members = " ".join(f"u{number}@elsewhere.example" for number in range(100))
        self.given(
            domain(
                mailboxes=["alice"],
                aliases={"team": members},
                catch_all="team@example.com",
                forward={"alice": Forward((mailbox("team@example.com"),))},
            ),
            domain("example.org", alias_of="example.com"),
        )
        for names in (
            ("team@example.com", "TEAM+1@example.com", "team+2@example.org", "nobody@example.com"),
            ("alice@example.com", "alice+1@example.org"),
        ):
            first = self.router.route(mailbox(names[0]), mailbox("x@evil.example"))
            self.assertEqual(100, len(first))
            for number, name in enumerate(names):
                sender = mailbox(f"y@evil{number}.example")
                self.assertIs(first, self.router.route(mailbox(name), sender), name)

    def test_refused_once(self) -> None:
        """A list that can't be delivered to is not gone through again."""
        self.given(domain(mailboxes=["bob"], aliases={"team": "bob@example.com eve@example.com"}))
        first = self.assertRaises(Refusal, self.route, "team@example.com")
        again = self.assertRaises(Refusal, self.route, "team+x@example.com")
        self.assertIs(first.reply, again.reply)
        self.assertIsNot(first, again)

    def test_bound_of_what_is_kept(self) -> None:
        """However many addresses are asked for, a bounded number of them is kept."""
        self.patch(router, "MAX_KEPT", 10)
        self.given(domain(mailboxes=None))
        first = self.router.route(mailbox("u@example.com"))
        self.assertIs(first, self.router.route(mailbox("u@example.com")))
        for number in range(20):
            self.route(f"u{number}@example.com")
        self.assertIsNot(first, self.router.route(mailbox("u@example.com")))

    def test_expanded(self) -> None:
        """EXPN tells what is behind a name of ours, and of no other."""
        self.given(domain(mailboxes=["alice"], aliases={"sales": "alice@example.com x@y.example"}))
        members = self.router.expand(mailbox("sales@example.com"))
        self.assertEqual([str(member) for member in members], ["alice@example.com", "x@y.example"])
        for address in ("nobody@example.com", "sales@elsewhere.example"):
            with self.assertRaises(Refusal):
                self.router.expand(mailbox(address))

    def test_before_mailbox(self) -> None:
        """An alias comes before a mailbox of the same name, and before any."""
        for mailboxes in (["alice", "bob"], None):
            self.given(domain(mailboxes=mailboxes, aliases={"alice": "bob@example.com"}))
            self.assertEqual(self.finals("alice+tag@example.com"), ["bob@example.com"])

    def test_missing_member(self) -> None:
        """An alias with a member that does not exist is refused, so that it is noticed."""
        self.given(domain(mailboxes=["bob"], aliases={"team": "bob@example.com eve@example.com"}))
        self.assertEqual(self.refused("team@example.com"), "5.1.1")

    def test_loop(self) -> None:
        """Aliases that lead in a circle lead nowhere."""
        self.given(
            domain(
                mailboxes=["bob"],
                aliases={"a": "bob@example.com b@b.example", "self": "self@example.com"},
            ),
            domain("b.example", aliases={"b": "A+x@example.com"}),
        )
        for address in ("a@example.com", "b@b.example", "self@example.com"):
            self.assertEqual(self.refused(address), "5.4.6")

    def test_long_chain(self) -> None:
        """A chain of aliases has an end."""
        names = {f"a{n}": f"a{n + 1}@example.com" for n in range(MAX_ALIASES + 1)}
        self.given(domain(mailboxes=[f"a{MAX_ALIASES + 1}"], aliases=names))
        self.assertEqual(len(self.route("a1@example.com")), 1)
        self.assertEqual(self.refused("a0@example.com"), "5.4.6")

    def test_wide_list(self) -> None:
        """So has a list."""
        members = " ".join(f"m{n}@partner.example" for n in range(MAX_ADDRESSES))
        self.given(domain(aliases={"all": members}))
        self.assertEqual(self.refused("all@example.com"), "5.4.6")

    def test_many_ways_to_one(self) -> None:
        """Each alias is looked at once, however many lists name it."""
        names = {f"a{n}": f"a{n + 1}@example.com A{n + 1}@example.com" for n in range(40)}
        self.given(domain(mailboxes=["a40"], aliases=names))
        self.assertEqual(self.finals("a0@example.com"), ["a40@example.com"])


class PostmasterTests(RouterTestCase):
    """Somebody reads the postmaster's mail (RFC 5321 section 4.5.1)."""

    def test_without_domain(self) -> None:
        """<Postmaster> is the one of the domain that our host is in."""
        self.given(
            domain("a.example", aliases={"postmaster": "x@partner.example"}),
            domain(mailboxes=["alice"], aliases={"postmaster": "alice@example.com"}),
        )
        self.assertEqual(self.finals("Postmaster"), ["alice@example.com"])

    def test_first_domain(self) -> None:
        """Where our host is in none, of the first."""
        self.given(domain("a.example", mailboxes=None), domain("b.example", mailboxes=None))
        self.assertEqual(self.finals("postmaster"), ["postmaster@a.example"])

    def test_not_configured(self) -> None:
        """A domain without one has that of our own domain."""
        self.given(
            domain("a.example", mailboxes=["bob"]),
            domain(mailboxes=["alice"], aliases={"postmaster": "alice@example.com"}),
        )
        self.assertEqual(self.finals("PostMaster@a.example"), ["alice@example.com"])

    def test_nowhere(self) -> None:
        """Where no domain has one, the first mailbox gets the mail."""
        self.given(domain(aliases={"x": "y@partner.example"}), domain("b.example", mailboxes="ed"))
        self.assertEqual(self.finals("postmaster@example.com"), ["d@b.example"])
        self.assertEqual(self.finals("postmaster"), ["d@b.example"])

    def test_catch_all(self) -> None:
        """A catch-all is somebody."""
        self.given(domain(mailboxes=["alice", "zoe"], catch_all="zoe@example.com"))
        self.assertEqual(self.finals("postmaster@example.com"), ["zoe@example.com"])
        self.assertEqual(self.finals("postmaster"), ["zoe@example.com"])

    def test_nobody(self) -> None:
        """Where we have no mailbox at all, there is no postmaster either."""
        self.given()
        self.assertEqual(self.refused("postmaster"), "5.1.1")


class RouteTests(RouterTestCase):
    """Where all other mail goes."""

    def setUp(self) -> None:
        self.given(
            routes={
                "partner.example": SMART_HOST,
                ".internal.example": LMTP,
                ".deep.internal.example": HOLD,
                "[10.0.0.1]": LMTP,
                "direct.example": Hop(Agent.MX),
            }
        )

    def test_domain(self) -> None:
        """A domain has its route, whatever the case; its subdomains do not."""
        self.assertEqual(self.hop("a@Partner.example"), SMART_HOST)
        self.assertEqual(self.hop("a@sub.partner.example").agent, Agent.MX)

    def test_subdomains(self) -> None:
        """A leading dot means what is below; the longest counts."""
        self.assertEqual(self.hop("a@x.internal.example"), LMTP)
        self.assertEqual(self.hop("a@x.y.internal.example"), LMTP)
        self.assertEqual(self.hop("a@x.deep.internal.example"), HOLD)
        self.assertEqual(self.hop("a@deep.internal.example"), LMTP)
        self.assertEqual(self.hop("a@internal.example").agent, Agent.MX)

    def test_mx(self) -> None:
        """The domain says where its MX hosts are, in the form in which it is looked up."""
        self.assertEqual(self.hop("a@Direct.example"), Hop(Agent.MX, "direct.example"))
        self.assertEqual(self.hop("a@bücher.test"), Hop(Agent.MX, "xn--bcher-kva.test"))

    def test_address_stays(self) -> None:
        """Addresses elsewhere are not ours to change."""
        self.assertEqual(self.finals("A+b@partner.example"), ["A+b@partner.example"])

    def test_address_literal(self) -> None:
        """It names a host that needs no looking up."""
        self.assertEqual(self.hop("a@[192.0.2.1]"), Hop(Agent.MX, "[192.0.2.1]"))
        self.assertEqual(self.hop("a@[IPv6:2001:db8::1]"), Hop(Agent.MX, "[IPv6:2001:db8::1]"))
        self.assertEqual(self.hop("a@[10.0.0.1]"), LMTP)

    def test_address_literal_of_ours(self) -> None:
        """Mail for it would come back; where the configuration names it, the postmaster knows."""
        own = OwnHost("us.example", ["198.51.100.1"], is_on_interface=lambda address: False)
        routes = {"[127.0.0.2]": LMTP}
        router = Router("us.example", {}, routes, Hop(Agent.MX), own=own)
        for literal in ("[127.0.0.1]", "[198.51.100.1]", "[IPv6:::1]", "[IPv6:::ffff:127.0.0.1]"):
            with self.assertRaises(Refusal) as caught:
                router.route(mailbox(f"a@{literal}"))
            self.assertEqual(str(caught.exception.reply)[:9], "554 5.4.6")
        self.assertEqual(router.route(mailbox("a@[127.0.0.2]"))[0][1], LMTP)
        self.assertEqual(router.route(mailbox("a@[192.0.2.1]"))[0][1].next_hop, "[192.0.2.1]")

    def test_smart_host(self) -> None:
        """A smart host gets everything, address literals too."""
        self.given(default=SMART_HOST)
        self.assertEqual(self.hop("a@elsewhere.example"), SMART_HOST)
        self.assertEqual(self.hop("a@[192.0.2.1]"), SMART_HOST)


class ForwardTests(RouterTestCase):
    """Mail of a mailbox that goes on, other names of domains, and routes by sender."""

    def forward(self, **forwards: Forward) -> None:
        self.given(domain(mailboxes=["alice", "bob"], aliases={"al": "alice"}, forward=forwards))

    def test_without_a_copy(self) -> None:
        """Forwarded mail goes elsewhere only, by whichever name it came."""
        self.forward(alice=Forward((mailbox("x@other.example"), mailbox("bob@example.com"))))
        expected = ["x@other.example", "bob@example.com"]
        for name in ("alice", "Alice+list", "al"):
            self.assertEqual(expected, self.finals(f"{name}@example.com"))

    def test_with_a_copy(self) -> None:
        """A copy stays where that is wanted."""
        self.forward(alice=Forward((mailbox("x@other.example"),), keep=True))
        self.assertEqual(["alice@example.com", "x@other.example"], self.finals("alice@example.com"))

    def test_circle(self) -> None:
        """Two that forward to each other are refused, as aliases are."""
        self.forward(
            alice=Forward((mailbox("bob@example.com"),)),
            bob=Forward((mailbox("alice@example.com"),)),
        )
        refusal = self.assertRaises(Refusal, self.route, "alice@example.com")
        self.assertEqual("5.4.6", refusal.reply.enhanced)

    def test_alias_domain(self) -> None:
        """Under another name of a domain are the same addresses, and no others."""
        self.given(
            domain(mailboxes=["alice"], aliases={"al": "alice@example.com"}),
            domain("example.org", alias_of="example.com"),
        )
        self.assertTrue(self.router.is_ours("example.org"))
        for name in ("alice", "ALICE+x", "al"):
            self.assertEqual(["alice@example.com"], self.finals(f"{name}@example.org"))
        self.assertRaises(Refusal, self.route, "bob@example.org")

    def test_senders(self) -> None:
        """A sender's entry, or that of its domain, comes before the default, and no other."""
        boss, shop = Hop(Agent.SMTP, "boss", 25), Hop(Agent.SMTP, "shop", 25)
        self.given(
            domain(mailboxes=["alice"], aliases={"carol": "carol@other.example"}),
            routes={"partner.example": SMART_HOST},
            senders={"boss@shop.example": boss, "shop.example": shop, ".shop.example": LMTP},
        )
        for address, sender, hop in (
            ("x@other.example", "Boss@SHOP.example", boss),
            ("x@other.example", "clerk@shop.example", shop),
            ("x@other.example", "clerk@a.shop.example", LMTP),
            ("x@other.example", "x@else.example", Hop(Agent.MX, "other.example")),
            ("x@other.example", "", Hop(Agent.MX, "other.example")),
            ("x@partner.example", "boss@shop.example", SMART_HOST),
            ("alice@example.com", "boss@shop.example", MAILDIR),
            # Anybody may have written what an address of ours sends on.
            ("carol@example.com", "boss@shop.example", Hop(Agent.MX, "other.example")),
        ):
            ((_, found),) = self.router.route(mailbox(address), mailbox(sender))
            self.assertEqual(hop, found, (address, sender))

    def test_senders_of_what_a_catch_all_sends_elsewhere(self) -> None:
        """The routes of senders do not count for it: a stranger may have written it."""
        boss = Hop(Agent.SMTP, "boss", 25)
        self.given(domain(catch_all="all@other.example"), senders={"boss@shop.example": boss})
        ((final, hop),) = self.router.route(mailbox("x@example.com"), mailbox("boss@shop.example"))
        self.assertEqual("all@other.example", str(final))
        self.assertEqual(Hop(Agent.MX, "other.example"), hop)


class RewritingTests(RouterTestCase):
    """The reverse-path of forwarded mail, and bounces to it."""

    def setUp(self) -> None:
        self.now = 1_700_000_000.0
        elsewhere = Forward((mailbox("dave@elsewhere.example"),))
        ours = domain(mailboxes=["alice"], forward={"alice": elsewhere})
        other = domain("example.org", alias_of="example.com")
        quiet = domain("quiet.example", mailboxes=["erin"])
        self.router = Router(
            self.hostname,
            {each.name: each for each in (ours, other, quiet)},
            {},
            MX,
            srs=SenderRewriting(b"k" * 32),
            now=lambda: self.now,
        )

    def rewritten(self, sender: str, forwarder: str = "alice@example.com") -> str:
        return str(self.router.rewritten(mailbox(sender), mailbox(forwarder)))

    def test_there_and_back(self) -> None:
        """A bounce to what we wrote goes to the sender, under each of our domains."""
        for name in ("example.com", "example.org"):
            path = self.rewritten("carol@partner.example", f"alice@{name}")
            self.assertTrue(path.endswith(f"@{name}"))
            self.assertEqual(["carol@partner.example"], self.finals(path))

    def test_as_it_was(self) -> None:
        """Bounces and what is ours go on unchanged, and what would be too long for a path."""
        for sender in (
            "",
            "alice@example.com",
            "a" * 64 + "@" + "b" * 60 + "." + "c" * 110,
            "a%b@partner.example",
        ):
            self.assertEqual(sender, self.rewritten(sender))

    def test_only_bounces_come_back(self) -> None:
        """Whoever writes to such an address, and is no bounce, writes to nobody."""
        path = mailbox(self.rewritten("carol@partner.example"))
        for sender in ("mallory@evil.example", "carol@partner.example", "alice@example.com"):
            self.assertRaises(Refusal, self.router.route, path, mailbox(sender))
        self.assertEqual(["carol@partner.example"], self.finals(str(path)))

    def test_only_where_mail_is_forwarded(self) -> None:
        """A domain from which nothing is sent on has no such addresses."""
        path = self.rewritten("carol@partner.example").replace("example.com", "quiet.example")
        self.assertRaises(Refusal, self.route, path)

    def test_no_route_comes_back(self) -> None:
        """A signed local part that might be a route leads nowhere."""
        rewriting = SenderRewriting(b"k" * 32)
        for local_part in ("victim%inside", "victim!inside", "a@b", "victim\uff05inside"):
            sender = Mailbox(local_part, "partner.example")
            path = rewriting.rewritten(sender, "example.com", self.now)
            self.assertRaises(Refusal, self.router.route, path)

    def test_forged(self) -> None:
        """What we did not write is no address of ours."""
        path = self.rewritten("carol@partner.example").replace("carol", "dave")
        self.assertRaises(Refusal, self.route, path)

    def test_expired(self) -> None:
        """It is an address of ours for some weeks, however often it was one."""
        path = self.rewritten("carol@partner.example")
        self.assertEqual(["carol@partner.example"], self.finals(path))
        self.now += (srs.MAX_AGE + 1) * 86400
        self.assertRaises(Refusal, self.route, path)
