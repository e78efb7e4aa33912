"""Who may turn a connection, and what each request is answered."""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.access.policy import NOT_A_PEER
from mta.access.turning import MAX_COUNTED, NOT_HELD, Reversal
from mta.interfaces import IHeldMail, IReversal, IRole, ITurnedRoles
from mta.mail import Agent, Hop, Reply
from mta.session import LinkKind, Session, TLSInfo
from mta.settings import Peer, Service
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.testing import GreetingRole

ETRN_HOP = Hop(Agent.SMTP, "10.1.2.3", 25)
OFFICE = Peer("office", ("office.example", ".branches.example"), user="office", etrn=ETRN_HOP)
LAB = Peer("lab", ("lab.example",), certificate="ab" * 32, methods=frozenset({"turn"}))
WAITS = Peer("waits", ("waits.example",), user="waits", linger=60.0)
DIALLED = Peer("dialled", ("dialled.example",), user="dialled", connect=ETRN_HOP)
ALL = {*Service}


class ReversalTests(SynchronousTestCase):
    """A reversal with some peers.  `held` is how many messages wait, for anybody."""

    def setUp(self) -> None:
        self.held = 1
        self.failure: OSError | None = None
        self.counted: list[tuple[str, list[str], int]] = []
        self.handed: list[tuple[str, list[str]]] = []
        self.kinds: list[LinkKind] = []
        self.runs: list[tuple[str, list[str]]] = []
        self.reversal = Reversal(
            [OFFICE, LAB, WAITS, DIALLED], cast(IHeldMail, self), cast(ITurnedRoles, self)
        )

    async def count(self, peer: str, domains: Collection[str], most: int) -> int:
        """See `IHeldMail.count`."""
        self.counted.append((peer, sorted(domains), most))
        if self.failure:
            raise self.failure
        return min(self.held, most)

    def sender_for(self, peer: Peer, domains: Sequence[str], kind: LinkKind) -> IRole:
        """Remember it."""
        self.handed.append((peer.name, list(domains)))
        self.kinds.append(kind)
        role: IRole = GreetingRole()
        return role

    def start_run(self, peer: Peer, domains: Sequence[str]) -> None:
        """Remember it."""
        self.runs.append((peer.name, list(domains)))

    def session(
        self,
        identity: str = "office",
        service: Service = Service.SUBMISSION,
        certificate: str = "",
        turned_peer: str = "",
    ) -> Session:
        """A session that has said EHLO."""
        tls = TLSInfo("TLSv1.3", "x", certificate)
        return Session(service, "192.0.2.1", tls, turned_peer, "x.example", True, identity)

    def answer(self, request: Coroutine[Any, Any, Any]) -> Reply | IRole:
        """What a request comes to: a reply, or the role after 250."""
        try:
            result: Reply | IRole = self.successResultOf(Deferred.fromCoroutine(self._ask(request)))
        except Refusal as refusal:
            return refusal.reply
        return result

    async def _ask(self, request: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await request
        except Refusal as refusal:
            return refusal.reply

    def atrn(self, *domains: str, **session: Any) -> Reply | IRole:
        """The answer to ATRN."""
        return self.answer(self.reversal.atrn(self.session(**session), domains))

    def turn(self, **session: Any) -> Reply | IRole:
        """The answer to TURN."""
        return self.answer(self.reversal.turn(self.session(**session)))

    def etrn(self, name: str, option: str = "", **session: Any) -> Reply | IRole:
        """The answer to ETRN."""
        return self.answer(self.reversal.etrn(self.session(**session), option, name))

    def test_interface(self) -> None:
        """It is what the receiver asks for."""
        verifyObject(IReversal, self.reversal)

    # --- who

    def test_nobody_has_logged_in(self) -> None:
        """530 to each of the three, and nothing is looked at."""
        for answer in (
            self.atrn(identity=""),
            self.turn(identity=""),
            self.etrn("office.example", identity=""),
        ):
            self.assertEqual(answer, replies.TURN_NEEDS_AUTH)
        self.assertEqual(self.counted, [])

    def test_somebody_else(self) -> None:
        """502 to a user who is no peer, to one that we dial, and to a certificate of nobody."""
        for session in (
            {"identity": "alice"},
            {"identity": "dialled"},
            {"identity": "", "certificate": "cd" * 32},
        ):
            for answer in (
                self.atrn(**session),
                self.turn(**session),
                self.etrn("office.example", **session),
            ):
                self.assertEqual(answer, replies.TURN_DENIED)

    def test_a_certificate(self) -> None:
        """It proves a peer as a log-in does."""
        self.assertIsInstance(self.turn(identity="", certificate="ab" * 32), GreetingRole)
        self.assertEqual(self.handed, [("lab", ["lab.example"])])

    def test_a_method_that_the_peer_may_not_use(self) -> None:
        """502: the lab may only use TURN."""
        self.assertEqual(self.atrn(identity="", certificate="ab" * 32), replies.TURN_DENIED)

    def test_a_turned_connection(self) -> None:
        """Whoever we turned to can't turn again, whatever it proves."""
        session = self.session(turned_peer="provider")
        self.assertEqual(self.reversal.methods(session), ())
        self.assertEqual(self.turn(turned_peer="provider"), replies.NOT_IMPLEMENTED)
        self.assertEqual(self.atrn(turned_peer="provider"), replies.NOT_IMPLEMENTED)

    # --- where

    def test_services(self) -> None:
        """Each method has its listeners; 502 on the others."""
        places = {
            self.turn: {Service.SMTP, Service.SUBMISSION},
            self.atrn: {Service.ODMR, Service.SUBMISSION},
            lambda **session: self.etrn("office.example", **session): {
                *(Service.SMTP, Service.SUBMISSION)
            },
        }
        for ask, services in places.items():
            refused = {each for each in Service if ask(service=each) == replies.NOT_IMPLEMENTED}
            self.assertEqual(refused, ALL - services)

    def test_shown_in_ehlo(self) -> None:
        """Before the log-in ATRN and ETRN, which clients look for; then what the peer may use."""
        for identity, certificate, service, shown in (
            ("", "", Service.ODMR, ["ATRN", "XLINK"]),
            ("waits", "", Service.ODMR, ["ATRN", "XLINK"]),
            ("", "", Service.SMTP, ["ETRN", "XLINK"]),
            ("", "cd" * 32, Service.ODMR, ["XLINK"]),
            ("", "", Service.LMTP, []),
            ("office", "", Service.ODMR, ["ATRN"]),
            ("office", "", Service.SMTP, ["ETRN", "TURN"]),
            ("OFFICE", "", Service.SUBMISSION, ["ATRN", "ETRN", "TURN"]),
            ("", "ab" * 32, Service.SUBMISSION, ["TURN"]),
            ("alice", "", Service.SUBMISSION, []),
        ):
            session = self.session(identity, service, certificate)
            self.assertEqual(sorted(self.reversal.methods(session)), shown)

    def test_nothing_is_shown_where_nobody_may(self) -> None:
        """Without peers that dial in there is no reversal."""
        reversal = Reversal([DIALLED], cast(IHeldMail, self), cast(ITurnedRoles, self))
        for service in Service:
            self.assertEqual(list(reversal.methods(self.session("", service))), [])

    # --- two links

    def test_a_quick_link(self) -> None:
        """A peer for which links are held may say that it turns a second one."""
        session = self.session("waits")
        for kind in (LinkKind.QUICK, LinkKind.MAIN, LinkKind.QUICK):
            self.reversal.link(session, kind)
            self.answer(self.reversal.atrn(session, ()))
            self.answer(self.reversal.turn(session))
        quick, main = [LinkKind.QUICK] * 2, [LinkKind.MAIN] * 2
        self.assertEqual(self.kinds, [*quick, *main, *quick])

    def test_no_quick_link(self) -> None:
        """Not where links end with the last message, and not for others."""
        for session, reply in (("office", NOT_HELD), ("", NOT_A_PEER), ("alice", NOT_A_PEER)):
            with self.assertRaises(Refusal) as caught:
                self.reversal.link(self.session(session), LinkKind.QUICK)
            self.assertEqual(caught.exception.reply, reply)
        self.reversal.link(self.session("office"), LinkKind.MAIN)

    # --- ATRN

    def test_atrn(self) -> None:
        """Without domains it means all of the peer's."""
        self.assertIsInstance(self.atrn(), GreetingRole)
        self.assertIsInstance(self.atrn("office.example", "x.branches.example"), GreetingRole)
        self.assertEqual(
            self.handed,
            [
                ("office", ["office.example", ".branches.example"]),
                ("office", ["office.example", "x.branches.example"]),
            ],
        )

    def test_atrn_for_the_domain_of_another(self) -> None:
        """450, even where another domain of the list is the peer's; nothing is sent."""
        for domains in (["lab.example"], ["office.example", "lab.example"], ["branches.example"]):
            self.assertEqual(self.atrn(*domains), replies.ATRN_REFUSED)
        self.assertEqual((self.handed, self.counted), ([], []))

    def test_atrn_without_mail(self) -> None:
        """453; but a peer for which the link is held may wait."""
        self.held = 0
        self.assertEqual(self.atrn(), replies.NO_MAIL)
        self.assertIsInstance(self.atrn(identity="waits"), GreetingRole)

    def test_atrn_with_a_broken_spool(self) -> None:
        """451."""
        self.failure = OSError("broken")
        self.assertEqual(self.atrn(), replies.ATRN_LATER)

    # --- TURN

    def test_turn_without_mail(self) -> None:
        """250 all the same: RFC 821 has no other reply."""
        self.held = 0
        self.assertIsInstance(self.turn(), GreetingRole)

    # --- ETRN

    def test_etrn_names(self) -> None:
        """A domain, those below it, or all of the peer: what is run for, and 459."""
        for option, name, domains in (
            ("", "office.example", ["office.example"]),
            ("", "x.branches.example", ["x.branches.example"]),
            ("@", "office.example", ["office.example"]),
            ("@", "branches.example", [".branches.example"]),
            ("@", "x.branches.example", ["x.branches.example", ".x.branches.example"]),
            ("@", "example", ["office.example", ".branches.example"]),
            ("#", "office", ["office.example", ".branches.example"]),
            ("", "example", None),
            ("", "lab.example", None),
            ("@", "lab.example", None),
            ("@", "fice.example", None),
            ("#", "lab", None),
        ):
            self.runs = []
            answer = self.etrn(name, option)
            if domains is None:
                self.assertEqual((answer, self.runs), (replies.ETRN_DENIED, []))
            else:
                self.assertEqual(self.runs, [("office", domains)], (option, name))

    def test_etrn_replies(self) -> None:
        """250, 251, 252, 253 and 458."""
        for held, option, name, code in (
            (0, "", "office.example", 251),
            (7, "#", "office", 250),
            (7, "", "office.example", 253),
            (MAX_COUNTED, "", "office.example", 252),
        ):
            self.held = held
            answer = self.etrn(name, option)
            assert isinstance(answer, Reply)
            self.assertEqual(answer.code, code)
        self.assertEqual(len(self.runs), 3)
        self.failure = OSError("broken")
        self.assertEqual(self.etrn("office.example"), replies.ETRN_LATER)

    def test_etrn_to_nowhere(self) -> None:
        """459 where we do not know where to send to."""
        self.assertEqual(self.etrn("waits.example", identity="waits"), replies.ETRN_DENIED)
