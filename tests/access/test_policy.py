"""Who may do what in a session."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from functools import partial
from ipaddress import ip_network
from typing import Any, ClassVar

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.access import AccessPolicy, hosts
from mta.access.admission import SESSION_COST
from mta.access.counters import Counters
from mta.access.limits import MAX_DELAY, ConcurrencyLimit, RateLimit, RecentNames, failure_delay
from mta.access.local import ClientNames
from mta.interfaces import IAccessPolicy, IClientNames, IRouter, IUsers
from mta.mail import NULL_PATH, Agent, Envelope, Hop, Mailbox, Recipient, Reply
from mta.session import Session, Testimony, TLSInfo
from mta.settings import HOUR, Limits, Peer, Relay, Service
from mta.smtp.errors import Refusal
from mta.smtp.forwarding import ForwardLoopCheck

STRANGER = "198.51.100.7"
NEIGHBOUR = "10.1.2.3"
MAILDIR, MX = Hop(Agent.MAILDIR, "/mail/{local}"), Hop(Agent.MX)
OFFICE = Peer("office", domains=("office.example", ".branches.example"), user="office")
CERTIFIED = Peer("lab", domains=("lab.example",), certificate="abcd")
PROVIDER = Peer("provider", domains=("example.com", "inner.example"))


@implementer(IRouter)
class Router:
    """Knows alice@example.com, everybody at any.example, and domains that go on elsewhere."""

    HOPS: ClassVar[dict[str, Hop]] = {
        "example.com": MAILDIR,
        "any.example": MAILDIR,
        "office.example": Hop(Agent.HOLD, "office"),
        "inner.example": Hop(Agent.SMTP, "10.0.0.5", 25),
        "closed.example": Hop(Agent.REJECT, "moved to closed.test"),
        "piped.example": Hop(Agent.PIPE, "cat {local}"),
        "filed.example": Hop(Agent.MAILDIR, "/mail/{local}"),
        "forwarded.example": MX,
    }

    def is_ours(self, domain: str) -> bool:
        return domain in self.HOPS

    def route(
        self, address: Mailbox, reverse_path: Mailbox = NULL_PATH
    ) -> Sequence[tuple[Mailbox, Hop]]:
        if address.domain == "example.com" and address.local_part != "alice":
            raise Refusal(Reply(550, "5.1.1", ("No such user here",)))
        if address.domain == "forwarded.example":
            address = Mailbox(address.local_part, "elsewhere.example")
        return [(address, self.HOPS.get(address.domain, MX))]

    def rewritten(self, reverse_path: Mailbox, forwarder: Mailbox) -> Mailbox:
        """See `IRouter`."""
        return reverse_path


@implementer(IUsers)
class Users:
    """alice may write as alice@example.com; office is known for its domains only."""

    async def mechanisms(self, session: Session) -> Sequence[str]:
        return ()

    async def authenticate(
        self, session: Session, mechanism: str, initial: bytes | None, challenge: Any
    ) -> str:
        raise AssertionError

    def may_use(self, identity: str, address: Mailbox) -> bool:
        return (identity, str(address)) == ("alice", "alice@example.com")


class PolicyTestCase(SynchronousTestCase):
    """What the tests share: the policy of one configuration, a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.access = self.make_policy()

    def make_policy(self, counters: Counters | None = None, **limits: int) -> AccessPolicy:
        """A policy with these limits, that lets 10/8 relay."""
        counters = counters or Counters(self.clock)
        counters.use(Limits(**limits))
        return AccessPolicy(
            Relay(
                (ip_network("10.0.0.0/8"), ip_network("fd00::/8")), (ip_network("10.255.0.0/16"),)
            ),
            Limits(**limits),
            [OFFICE, CERTIFIED, PROVIDER],
            Router(),
            Users(),
            counters,
        )

    def session(
        self,
        client: str = STRANGER,
        service: Service = Service.SMTP,
        *,
        identity: str = "",
        turned_peer: str = "",
        tls: TLSInfo | None = None,
    ) -> Session:
        """A session that has said EHLO."""
        return Session(service, client, tls, turned_peer, "client.example", True, identity)

    def told(self, server: str, client: str, *, is_internal: bool = False, **more: Any) -> Session:
        """A session with a server that tells of a client."""
        session = self.session(server, **more)
        told = Testimony(server, "1", "ESMTPA", is_internal)
        session.forwarded = Session(session.service, client, None, told=told)
        return session

    def passes(self, question: Coroutine[Any, Any, None]) -> None:
        """The access lets it pass."""
        self.successResultOf(Deferred.fromCoroutine(question))

    def refuses(self, question: Coroutine[Any, Any, None], code: str) -> None:
        """The access refuses with this code and enhanced code."""
        failure = self.failureResultOf(Deferred.fromCoroutine(question), Refusal)
        reply = failure.value.reply
        self.assertEqual(f"{reply.code} {reply.enhanced}", code)

    def to(self, session: Session, address: str) -> Coroutine[Any, Any, None]:
        """RCPT, from an address that does not matter."""
        return self.access.rcpt(session, Mailbox("x", "y.example"), Recipient(mailbox(address)))

    def mail(self, session: Session, address: str) -> Coroutine[Any, Any, None]:
        """MAIL from that address."""
        return self.access.mail(session, mailbox(address))


def mailbox(address: str) -> Mailbox:
    """The mailbox that an address names; what stands before the last ``@`` is its local part."""
    local_part, at, domain = address.rpartition("@")
    return Mailbox(local_part, domain) if at else Mailbox(address)


class InterfaceTests(PolicyTestCase):
    """The seam."""

    def test_interface(self) -> None:
        """The access promises what the receiver relies on."""
        verifyObject(IAccessPolicy, self.access)


class RelayTests(PolicyTestCase):
    """Who may send to whom."""

    def test_ours(self) -> None:
        """Anybody may write to a mailbox of ours; one that does not exist is refused as such."""
        self.passes(self.to(self.session(), "alice@example.com"))
        self.refuses(self.to(self.session(), "bob@example.com"), "550 5.1.1")

    def test_stranger(self) -> None:
        """A stranger may not relay."""
        self.refuses(self.to(self.session(), "carol@elsewhere.example"), "550 5.7.1")

    def test_known_to_fail(self) -> None:
        """What no attempt could deliver is refused, and not taken and returned."""
        session = self.session()
        self.refuses(self.to(session, "-x@piped.example"), "550 5.1.3")
        self.passes(self.to(session, "x@piped.example"))
        self.refuses(self.to(session, "a" * 256 + "@filed.example"), "550 5.1.3")

    def test_loops(self) -> None:
        """Mail that a forward has seen before, and no other."""
        check = ForwardLoopCheck(Router())
        for domain, is_loop in (("forwarded.example", True), ("any.example", False)):
            envelope = Envelope(NULL_PATH, (Recipient(Mailbox("x", domain)),))
            field = f"Delivered-To: x@{domain}\r\n".encode()
            if is_loop:
                self.assertRaises(Refusal, check.check, self.session(), envelope, field)
            else:
                check.check(self.session(), envelope, field)

    def test_rejected(self) -> None:
        """What would be taken only to be rejected is refused at once, in the words for it."""
        question = self.to(self.session(), "alice@closed.example")
        failure = self.failureResultOf(Deferred.fromCoroutine(question), Refusal)
        self.assertEqual(str(failure.value.reply), "550 5.7.1 moved to closed.test")

    def test_networks(self) -> None:
        """A client in `relay.networks` may relay, by whatever form of its address."""
        for client in (NEIGHBOUR, "::ffff:10.1.2.3", "fd00::5"):
            self.passes(self.to(self.session(client), "carol@elsewhere.example"))
        for client in (STRANGER, "::ffff:198.51.100.7", "2001:db8::1", "unix", "", "10.1.2.3.4"):
            self.refuses(self.to(self.session(client), "carol@elsewhere.example"), "550 5.7.1")

    def test_users(self) -> None:
        """A user may relay from anywhere."""
        for service in (Service.SMTP, Service.SUBMISSION):
            session = self.session(service=service, identity="alice")
            self.passes(self.to(session, "carol@elsewhere.example"))

    def test_lmtp(self) -> None:
        """LMTP is for our mailboxes, whoever speaks it."""
        session = self.session(NEIGHBOUR, Service.LMTP, identity="alice")
        self.passes(self.to(session, "alice@example.com"))
        self.refuses(self.to(session, "carol@elsewhere.example"), "550 5.7.1")

    def test_odmr(self) -> None:
        """ODMR takes no mail."""
        session = self.session(service=Service.ODMR, identity="office")
        self.refuses(self.mail(session, "a@office.example"), "502 5.5.1")

    def test_postmaster(self) -> None:
        """Postmaster without a domain is ours (RFC 5321 section 4.5.1)."""
        self.passes(self.to(self.session(), "Postmaster"))
        self.passes(self.to(self.session(turned_peer="provider"), "Postmaster"))

    def test_no_way_round(self) -> None:
        """The routes of former times lead nowhere in a domain of ours."""
        for local_part in (
            "carol%elsewhere.example",
            "elsewhere.example!carol",
            "carol@elsewhere.example",
            "@elsewhere.example:carol",
            "alice%example.com",
        ):
            self.refuses(self.to(self.session(), f"{local_part}@example.com"), "550 5.1.1")

    def test_no_way_round_by_literal(self) -> None:
        """An address literal is a domain like another: not ours."""
        self.refuses(self.to(self.session(), "alice@[127.0.0.1]"), "550 5.7.1")
        self.refuses(self.to(self.session(), "alice@[10.1.2.3]"), "550 5.7.1")

    def test_taken_literally(self) -> None:
        """Where any local part is a mailbox of ours, such a one is a mailbox, never a route."""
        self.passes(self.to(self.session(), "carol%elsewhere.example@any.example"))

    def test_no_way_round_by_another_server(self) -> None:
        """A stranger can't hand a route to a server behind us; a client that may relay can."""
        for domain in ("inner.example", "office.example"):
            for local_part in ("carol%elsewhere.example", "a!b", "carol@elsewhere.example"):
                address = f"{local_part}@{domain}"
                self.refuses(self.to(self.session(), address), "550 5.7.1")
                self.passes(self.to(self.session(NEIGHBOUR), address))
            self.passes(self.to(self.session(), f"carol@{domain}"))

    @given(st.text(alphabet="ab@%!:[].,", max_size=20), st.sampled_from(["[10.1.2.3]", "e.org"]))
    def test_strangers_never_relay(self, local_part: str, domain: str) -> None:
        """Whatever a stranger writes before the last ``@``, a domain that is not ours stays so."""
        address = Recipient(Mailbox(local_part, domain))
        self.refuses(self.access.rcpt(self.session(), NULL_PATH, address), "550 5.7.1")


class TurnedPeerTests(PolicyTestCase):
    """A connection that was turned: the peer is an MX for us, never a client of ours."""

    def test_own_domains_only(self) -> None:
        """It may hand over mail for its domains, of those that are ours, and no other."""
        session = self.session(turned_peer="provider")
        self.passes(self.to(session, "alice@example.com"))
        self.refuses(self.to(session, "carol@any.example"), "550 5.7.1")
        self.refuses(self.to(session, "carol@elsewhere.example"), "550 5.7.1")

    def test_never_trusted(self) -> None:
        """Neither its address nor an identity makes it a client that may relay."""
        session = self.session(NEIGHBOUR, turned_peer="provider", identity="alice")
        self.refuses(self.to(session, "carol@elsewhere.example"), "550 5.7.1")

    def test_no_way_round_by_another_server(self) -> None:
        """It can't hand a route to a server behind us, though its address may relay."""
        session = self.session(NEIGHBOUR, turned_peer="provider")
        self.passes(self.to(session, "carol@inner.example"))
        self.refuses(self.to(session, "carol%elsewhere.example@inner.example"), "550 5.7.1")

    def test_peer_domain_that_is_not_ours(self) -> None:
        """A domain of the peer's that we do not deliver is not relayed for it."""
        session = self.session(turned_peer="lab")
        self.refuses(self.to(session, "carol@lab.example"), "550 5.7.1")

    def test_unknown_peer(self) -> None:
        """A peer that is gone from the configuration may nothing."""
        self.refuses(self.to(self.session(turned_peer="gone"), "alice@example.com"), "550 5.7.1")

    def test_any_reverse_path(self) -> None:
        """Mail that comes in may be from anybody."""
        self.passes(self.mail(self.session(turned_peer="provider"), "carol@elsewhere.example"))


class ReversePathTests(PolicyTestCase):
    """Who may write as whom."""

    def test_submission_needs_a_user(self) -> None:
        """Submission begins with AUTH, for clients in `relay.networks` too."""
        session = self.session(NEIGHBOUR, Service.SUBMISSION)
        self.refuses(self.mail(session, "alice@example.com"), "530 5.7.0")
        self.refuses(self.access.mail(session, NULL_PATH), "530 5.7.0")

    def test_own_addresses(self) -> None:
        """A user writes as its own addresses, on every service, or as nobody."""
        for service in (Service.SMTP, Service.SUBMISSION):
            session = self.session(service=service, identity="alice")
            self.passes(self.mail(session, "alice@example.com"))
            self.passes(self.access.mail(session, NULL_PATH))
            self.refuses(self.mail(session, "bob@example.com"), "553 5.7.1")

    def test_author(self) -> None:
        """The From: field is held to the same."""
        session = self.session(service=Service.SUBMISSION, identity="alice")
        self.access.header_from(session, Mailbox("alice", "example.com"))
        error = self.assertRaises(
            Refusal, self.access.header_from, session, Mailbox("bob", "example.com")
        )
        self.assertEqual((error.reply.code, error.reply.enhanced), (550, "5.7.1"))

    def test_outsiders(self) -> None:
        """Neither users nor hosts of ours; whoever a peer hands mail on for, and LMTP."""
        self.assertTrue(self.access.is_outsider(self.session()))
        self.assertTrue(self.access.is_outsider(self.session(turned_peer="office")))
        self.assertTrue(self.access.is_outsider(self.session(service=Service.LMTP)))
        self.assertFalse(self.access.is_outsider(self.session(identity="alice")))
        self.assertFalse(self.access.is_outsider(self.session("10.1.2.3")))

    def test_whose_authors_are_checked(self) -> None:
        """A person's; a peer hands over what others wrote."""
        shown = TLSInfo("TLSv1.3", "x", "abcd")
        self.assertTrue(self.access.checks_authors(self.session(identity="alice")))
        self.assertFalse(self.access.checks_authors(self.session(identity="Office")))
        self.assertFalse(self.access.checks_authors(self.session(identity="lab", tls=shown)))

    def test_peer(self) -> None:
        """A peer that logged in writes as its domains, and those below a leading dot."""
        session = self.session(identity="Office")
        self.passes(self.mail(session, "anybody@office.example"))
        self.passes(self.mail(session, "anybody@north.branches.example"))
        self.refuses(self.mail(session, "anybody@branches.example"), "553 5.7.1")
        self.refuses(self.mail(session, "anybody@evilbranches.example"), "553 5.7.1")
        self.refuses(self.mail(session, "anybody@lab.example"), "553 5.7.1")

    def test_peer_by_certificate(self) -> None:
        """A peer that showed its certificate writes as its domains; its name alone is nothing."""
        shown = TLSInfo("TLSv1.3", "x", "abcd")
        self.passes(self.mail(self.session(identity="lab", tls=shown), "a@lab.example"))
        self.refuses(self.mail(self.session(identity="lab"), "a@lab.example"), "553 5.7.1")

    def test_no_users(self) -> None:
        """Where nobody can log in, nobody writes as a user."""
        self.access = AccessPolicy(Relay(), Limits(), [], Router(), None, Counters(self.clock))
        self.passes(self.mail(self.session(), "carol@elsewhere.example"))
        self.refuses(self.mail(self.session(identity="alice"), "alice@example.com"), "553 5.7.1")


class QualifiedTests(PolicyTestCase):
    """Reverse-paths of programs that know no domain."""

    def qualified(self, session: Session, address: str) -> str:
        """The address as it goes on."""
        names = ClientNames(
            networks=[ip_network("10.0.0.0/8")],
            proxies=[],
            local_names={"localhost", "host.example.com"},
            home_domain="example.com",
        )
        self.assertTrue(verifyObject(IClientNames, names))
        return str(names.qualified(session, mailbox(address)))

    def test_programs_of_ours(self) -> None:
        """What is sent from this host's names, on this host or near it, gets our domain."""
        for client in (NEIGHBOUR, "unix"):
            session = self.session(client)
            self.assertEqual(self.qualified(session, "root@localhost"), "root@example.com")
            self.assertEqual(self.qualified(session, "root@host.example.com"), "root@example.com")
            self.assertEqual(self.qualified(session, "root@other.example"), "root@other.example")

    def test_everybody_else(self) -> None:
        """Strangers, users and peers say themselves who they are; so does nobody, `<>`."""
        for session in (
            self.session(),
            self.session(NEIGHBOUR, identity="alice"),
            self.session(NEIGHBOUR, turned_peer="provider"),
            self.session("unknown"),
            self.told(NEIGHBOUR, "127.0.0.1"),
        ):
            self.assertEqual(self.qualified(session, "root@localhost"), "root@localhost")
        internal = self.told(NEIGHBOUR, STRANGER, is_internal=True)
        self.assertEqual(self.qualified(internal, "root@localhost"), "root@example.com")
        self.assertEqual(self.qualified(self.session(NEIGHBOUR), ""), "")


class ConnectionTests(PolicyTestCase):
    """How many connections there may be."""

    def test_in_all(self) -> None:
        """One more than `connections` is sent away, until one leaves."""
        self.access = self.make_policy(connections=2)
        first, *_ = sessions = [self.session(f"192.0.2.{number}") for number in range(3)]
        self.passes(self.access.connect(first))
        self.passes(self.access.connect(sessions[1]))
        self.refuses(self.access.connect(sessions[2]), "421 4.3.2")
        self.access.disconnect(first)
        self.passes(self.access.connect(sessions[2]))

    def test_per_host(self) -> None:
        """One more than `connections_per_host` is sent away, another host is not."""
        self.access = self.make_policy(connections_per_host=2)
        sessions = [self.session() for _ in range(3)]
        self.passes(self.access.connect(sessions[0]))
        self.passes(self.access.connect(sessions[1]))
        self.refuses(self.access.connect(sessions[2]), "421 4.7.0")
        other = self.session("192.0.2.9")
        self.passes(self.access.connect(other))
        self.access.disconnect(sessions[2])  # was never let in: makes no room
        third = self.session()
        self.refuses(self.access.connect(third), "421 4.7.0")
        self.access.disconnect(sessions[0])
        self.access.disconnect(sessions[0])  # leaves once only
        self.passes(self.access.connect(third))
        fourth = self.session()
        self.refuses(self.access.connect(fourth), "421 4.7.0")

    def test_networks_of_one_host(self) -> None:
        """All addresses of an IPv6 /64 are one host, and a mapped address is what it maps."""
        self.access = self.make_policy(connections_per_host=1)
        kept = [self.session("2001:db8::1"), self.session("2001:db8:0:1::1"), self.session()]
        for session in kept:
            self.passes(self.access.connect(session))
        self.refuses(self.access.connect(self.session("2001:db8::2")), "421 4.7.0")
        self.refuses(self.access.connect(self.session("2001:db8::ffff:0:0:1")), "421 4.7.0")
        self.refuses(self.access.connect(self.session(f"::ffff:{STRANGER}")), "421 4.7.0")

    def test_proxies(self) -> None:
        """A proxy that speaks for many is no host that could be too many; it counts in all."""
        self.access = self.make_policy(connections=2, connections_per_host=1)
        first, second, third = (self.session("10.255.0.1") for _ in range(3))
        self.passes(self.access.connect(first))
        self.passes(self.access.connect(second))
        self.refuses(self.access.connect(third), "421 4.3.2")

    def test_local(self) -> None:
        """A local socket has no host to limit."""
        self.access = self.make_policy(connections_per_host=1)
        kept = [self.session("unix") for _ in range(3)]
        for session in kept:
            self.passes(self.access.connect(session))

    def test_what_a_host_cost_lately(self) -> None:
        """A new session knows what the others of its host wasted, for a minute."""
        session = self.session()
        self.passes(self.access.connect(session))
        session.commands_without_mail = 400
        self.access.disconnect(session)
        for client, wasted in ((STRANGER, 400 + SESSION_COST), ("192.0.2.9", 0)):
            other = self.session(client)
            self.passes(self.access.connect(other))
            self.assertEqual(other.host_commands_without_mail, wasted)
            self.access.disconnect(other)
        self.clock.advance(60)
        self.passes(self.access.connect(other := self.session()))
        self.assertEqual(other.host_commands_without_mail, 0)

    def test_real_address(self) -> None:
        """A session whose real client comes to light later counts for that one."""
        self.access = self.make_policy(connections_per_host=1)
        session = self.session(NEIGHBOUR)
        self.passes(self.access.connect(session))
        session.client = STRANGER
        self.passes(self.access.connect(session))
        self.refuses(self.access.connect(self.session()), "421 4.7.0")
        other = self.session(NEIGHBOUR)
        self.passes(self.access.connect(other))

    def test_partner(self) -> None:
        """A turned connection is no new one."""
        self.access = self.make_policy(connections=0)
        self.passes(self.access.connect(self.session(turned_peer="provider")))


class LogInTests(PolicyTestCase):
    """Guessing passwords."""

    def failed(self, user: str = "", client: str = STRANGER, times: int = 3) -> None:
        """So many log-ins fail."""
        for _ in range(times):
            self.access.auth_failed(self.session(client), user or "guess", bool(user))

    def refuses_log_in(self, user: str, client: str = STRANGER) -> None:
        """Neither the right nor the wrong secret of that user is heard there."""
        session = self.session(client)
        right, wrong = self.access.authenticated, partial(self.access.auth_failed, is_known=True)
        for question in (right, wrong):
            error = self.assertRaises(Refusal, question, session, user)
            self.assertEqual((error.reply.code, error.reply.enhanced), (421, "4.7.0"))

    def test_ban(self) -> None:
        """After `auth_failures` nobody logs in from a host for ten minutes; its mail is taken."""
        self.access = self.make_policy(auth_failures=3)
        session = self.session()
        self.passes(self.access.connect(session))
        for _ in range(3):
            self.passes(self.access.auth(session))
            self.access.auth_failed(session, "guess", False)
        self.refuses(self.access.auth(session), "421 4.7.0")
        self.refuses_log_in("alice")
        self.passes(self.access.auth(self.session("192.0.2.9")))
        self.passes(self.access.connect(self.session()))
        self.passes(self.mail(self.session(), "a@b.example"))
        self.passes(self.to(self.session(), "alice@example.com"))
        self.clock.advance(599)
        self.refuses(self.access.auth(self.session()), "421 4.7.0")
        self.clock.advance(1)
        self.passes(self.access.auth(self.session()))
        self.access.authenticated(self.session(), "alice")

    def test_a_ban_of_a_network(self) -> None:
        """All of an IPv6 /64 is one host."""
        self.access = self.make_policy(auth_failures=3)
        self.failed(client="2001:db8::1")
        self.refuses(self.access.auth(self.session("2001:db8::2")), "421 4.7.0")
        self.passes(self.access.auth(self.session("2001:db8:0:1::1")))

    def test_an_address_of_many_users(self) -> None:
        """Of a trusted network, a proxy, a UNIX socket: only a user is banned, if it is known."""
        for client in (NEIGHBOUR, "10.255.0.1", "fd00::1", "unix"):
            self.access = self.make_policy(auth_failures=3)
            self.failed("alice", client)
            self.refuses_log_in("ALICE", client)
            self.passes(self.access.auth(self.session(client)))
            self.access.authenticated(self.session(client), "bob")
            self.failed("", client)
            # A name of nobody is refused as well, or it would be known that it is nobody's.
            error = self.assertRaises(Refusal, self.failed, "", client)
            self.assertEqual(error.reply.code, 421)
            self.access.authenticated(self.session(client), "office")
            self.access.authenticated(self.session("192.0.2.9"), "alice")

    def test_who_has_logged_in_before(self) -> None:
        """Users go on from a host that a stranger gets banned, but for those who were tried.

        A peer goes on where it was tried itself, until that was too often.
        """
        self.access = self.make_policy(auth_failures=3)
        for user in ("Office", "bob", "alice"):
            self.access.authenticated(self.session(), user)
        self.failed("alice")
        self.passes(self.access.auth(self.session()))
        self.access.authenticated(self.session(), "office")
        self.access.authenticated(self.session(), "bob")
        self.refuses_log_in("alice")
        self.failed("office", times=29)
        self.access.authenticated(self.session(), "office")
        self.failed("office", times=1)
        self.refuses_log_in("office")

    def test_one_account_from_many_hosts(self) -> None:
        """Its log-ins become slow, right or wrong, and not where it has logged in before."""
        self.access = self.make_policy(auth_failures=3)
        self.assertEqual(self.access.authenticated(self.session(), "alice"), 0.0)
        slow, nobody = (
            [
                self.access.auth_failed(self.session(f"{network}.{number}"), user, is_known)
                for number in range(90)
            ]
            for network, user, is_known in (
                ("192.0.2", "alice", True),
                ("198.18.0", "nobody", False),
            )
        )
        self.assertEqual(slow, nobody)  # or it would be known that there is an alice
        self.assertEqual(slow[:3], [0.25] * 3)
        self.assertEqual(slow[-1], MAX_DELAY)
        elsewhere = self.session("203.0.113.1")
        self.assertEqual(self.access.authenticated(elsewhere, "alice"), MAX_DELAY)
        self.assertEqual(self.access.authenticated(elsewhere, "alice"), 0.0)
        self.assertEqual(self.access.authenticated(self.session(), "alice"), 0.0)
        self.assertEqual(self.access.authenticated(self.session("203.0.113.2"), "bob"), 0.0)

    def test_what_the_log_says(self) -> None:
        """Who failed, how often, and who is banned, why and for how long."""
        self.access = self.make_policy(auth_failures=3)
        with capturedLogs() as events:
            self.failed("alice", times=2)
            self.failed("", times=1)
        lines = [formatEvent(event) for event in events]
        self.assertEqual(
            lines[:3],
            [
                f"log-in failed from {STRANGER} as alice (1 of 3 in 10 minutes)",
                f"log-in failed from {STRANGER} as alice (2 of 3 in 10 minutes)",
                f"log-in failed from {STRANGER} as an unknown user (3 of 3 in 10 minutes)",
            ],
        )
        self.assertEqual(lines[3], f"no log-ins from {STRANGER} for 10 minutes: 3 failed (alice)")
        with capturedLogs() as events:
            self.failed("x\n" + "y" * 1000, NEIGHBOUR)
        lines = [formatEvent(event) for event in events]
        self.assertTrue(all(len(line) < 300 and line.isprintable() for line in lines), lines)
        self.assertTrue(lines[-1].startswith("no log-ins of 'x\\n"), lines[-1])

    def test_a_reload(self) -> None:
        """Counts, bans and connections stay as they are; limits become the new ones."""
        counters = Counters(self.clock)
        old = self.make_policy(counters, auth_failures=3, connections=2, messages_per_minute=1)
        first, second = self.session(), self.session("192.0.2.9")
        self.passes(old.connect(first))
        self.passes(old.connect(second))
        self.passes(old.mail(first, NULL_PATH))
        old.auth_failed(first, "alice", True)
        old.auth_failed(first, "alice", True)
        self.access = self.make_policy(
            counters, auth_failures=3, connections=2, messages_per_minute=1
        )
        self.refuses(self.access.connect(self.session("192.0.2.8")), "421 4.3.2")
        self.refuses(self.access.mail(first, NULL_PATH), "450 4.7.1")
        self.access.auth_failed(first, "alice", True)
        self.refuses(self.access.auth(first), "421 4.7.0")
        old.disconnect(first)
        self.passes(self.access.connect(self.session("192.0.2.8")))
        self.access = self.make_policy(counters, auth_failures=4, connections=9)
        self.refuses(self.access.auth(self.session()), "421 4.7.0")
        self.passes(self.access.connect(self.session("192.0.2.7")))

    def test_growing_delay(self) -> None:
        """Each failure of a host holds the reply back for longer, up to a bound."""
        session = self.session()
        delays = [self.access.auth_failed(session, "guess", False) for _ in range(8)]
        self.assertEqual(delays[:4], [0.25, 0.5, 1.0, 2.0])
        self.assertEqual(delays, sorted(delays))
        self.assertEqual(delays[-1], MAX_DELAY)
        self.assertEqual(self.access.auth_failed(self.session("192.0.2.9"), "other", False), 0.25)
        self.assertEqual(failure_delay(10**9), MAX_DELAY)


class RateTests(PolicyTestCase):
    """How much one client may send."""

    def test_messages(self) -> None:
        """One more message than `messages_per_minute` waits for the next minute."""
        self.access = self.make_policy(messages_per_minute=2)
        for _ in range(2):
            self.passes(self.mail(self.session(), "a@b.example"))
        self.refuses(self.mail(self.session(), "a@b.example"), "450 4.7.1")
        self.passes(self.mail(self.session("192.0.2.9"), "a@b.example"))
        self.clock.advance(60)
        self.passes(self.mail(self.session(), "a@b.example"))

    def test_users_count_for_themselves(self) -> None:
        """A user is counted wherever it comes from, its host's other clients are not."""
        self.access = self.make_policy(messages_per_minute=1)
        self.passes(self.mail(self.session(identity="alice"), "alice@example.com"))
        moved = self.session("192.0.2.9", identity="ALICE")
        self.refuses(self.access.mail(moved, NULL_PATH), "450 4.7.1")
        self.passes(self.mail(self.session(), "a@b.example"))

    def test_recipients(self) -> None:
        """One more recipient than `recipients_per_hour` waits; refused ones do not count."""
        self.access = self.make_policy(recipients_per_hour=2)
        session = self.session()
        for _ in range(3):
            self.refuses(self.to(session, "nobody@example.com"), "550 5.1.1")
        self.passes(self.to(session, "alice@example.com"))
        self.passes(self.to(session, "alice@example.com"))
        self.refuses(self.to(session, "alice@example.com"), "450 4.7.1")
        self.clock.advance(HOUR)
        self.passes(self.to(session, "alice@example.com"))

    def test_told_clients(self) -> None:
        """Each client of a server that tells of them has its own number; a user stays one."""
        self.access = self.make_policy(messages_per_minute=1, recipients_per_hour=1)
        servers: list[dict[str, Any]] = [
            {},
            {"turned_peer": "provider"},
            {"service": Service.LMTP},
        ]
        for more in servers:
            for client in ("192.0.2.9", "2001:db8::1"):
                session = self.told(NEIGHBOUR, client, **more)
                self.passes(self.mail(session, "a@b.example"))
                self.refuses(self.mail(session, "a@b.example"), "450 4.7.1")
                self.passes(self.to(session, "alice@example.com"))
                self.refuses(self.to(session, "alice@example.com"), "450 4.7.1")
            self.clock.advance(HOUR)
        first = self.told(NEIGHBOUR, "192.0.2.9", identity="alice")
        self.passes(self.mail(first, "alice@example.com"))
        second = self.told(NEIGHBOUR, "192.0.2.10", identity="alice")
        self.refuses(self.mail(second, "alice@example.com"), "450 4.7.1")
        for session in (
            self.told(STRANGER, "unknown", turned_peer="provider"),
            self.told(STRANGER, "192.0.2.9", turned_peer="provider", is_internal=True),
        ):
            for _ in range(3):
                self.passes(self.mail(session, "a@b.example"))

    def test_told_clients_have_no_right(self) -> None:
        """A server keeps its rights, and gets none by a client in our networks."""
        for client in (NEIGHBOUR, "127.0.0.1", "::1", "unix", "unknown"):
            for is_internal in (True, False):
                stranger = self.told(STRANGER, client, is_internal=is_internal)
                self.refuses(self.to(stranger, "x@elsewhere.example"), "550 5.7.1")
                self.assertTrue(self.access.is_outsider(stranger))
                assert stranger.forwarded is not None
                self.assertTrue(self.access.is_outsider(stranger.forwarded))
                ours = self.told(NEIGHBOUR, client, is_internal=is_internal)
                self.passes(self.to(ours, "x@elsewhere.example"))

    def test_who_is_not_counted(self) -> None:
        """A provider's held mail and local delivery know no rates."""
        self.access = self.make_policy(messages_per_minute=1, recipients_per_hour=1)
        for session in (self.session(turned_peer="provider"), self.session(service=Service.LMTP)):
            for _ in range(3):
                self.passes(self.mail(session, "a@b.example"))
                self.passes(self.to(session, "alice@example.com"))


class LimitTests(SynchronousTestCase):
    """The counters."""

    def test_memory(self) -> None:
        """A rate remembers a bounded number of keys: the latest."""
        rate = RateLimit(1, 60, Clock(), capacity=3)
        for number in range(10):
            self.assertTrue(rate.take(str(number)))
        self.assertFalse(rate.take("9"))
        self.assertFalse(rate.take("7"))
        self.assertTrue(rate.take("0"))

    def test_no_limit(self) -> None:
        """A limit of 0 is none."""
        rate = RateLimit(0, 60, Clock())
        self.assertTrue(all(rate.take("a") for _ in range(100)))
        self.assertFalse(rate.is_exhausted("a"))

    def test_recent(self) -> None:
        """The latest members of the latest groups are remembered."""
        recent = RecentNames(groups=2, members=2)
        for group, member in ("ax", "bx", "cx", "cy", "cz", "by"):
            recent.add(group, member)
        self.assertEqual([recent.of(group) for group in "abc"], [(), ("x", "y"), ("y", "z")])
        recent.forget("b")
        self.assertEqual(recent.of("b"), ())

    def test_nothing_left_behind(self) -> None:
        """A key that gave everything back takes no memory."""
        limit = ConcurrencyLimit(5)
        for number in range(100):
            limit.acquire(str(number))
            limit.release(str(number))
        limit.acquire("a")
        self.assertEqual(dict(limit._counts), {"a": 1})

    @given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
    def test_one_customer_one_host(self, address: Any, other: int) -> None:
        """Two IPv6 addresses are one host where their first 64 bits are the same."""
        if address.ipv4_mapped:
            return
        neighbour = type(address)((int(address) >> 64 << 64) | other)
        if not neighbour.ipv4_mapped:
            self.assertEqual(hosts.key(str(address)), hosts.key(str(neighbour)))
