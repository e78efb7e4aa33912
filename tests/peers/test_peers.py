"""The commands that ask for mail, and the seams of the room."""

from __future__ import annotations

from contextlib import nullcontext

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.interfaces import (
    IAcceptedMail,
    IHeldMail,
    IHeldMailWatch,
    IMailSource,
    IRole,
    ITurnedRoles,
)
from mta.peers.exchange import NoMail, atrn_command, etrn_by_queue, etrn_commands
from mta.peers.interfaces import IExchanges, ITallyWatch
from mta.peers.tally import CountedSource, Tally, Unwatched
from mta.peers.turned_receiver import TurnedReceiver
from tests.sides import sides


class CommandTests(SynchronousTestCase):
    """What we ask a peer that we dial."""

    def test_atrn(self) -> None:
        """Domains by name; all that the peer has where they can't be named in one line."""
        self.assertEqual(atrn_command(["a.example", "b.example"]), "ATRN a.example,b.example")
        self.assertEqual(atrn_command(["a.example", ".b.example"]), "ATRN")
        self.assertEqual(atrn_command([f"domain{n}.example" for n in range(100)]), "ATRN")

    def test_etrn(self) -> None:
        """One command a domain, with @ for those below."""
        self.assertEqual(
            etrn_commands(["a.example", ".b.example"]), ["ETRN a.example", "ETRN @b.example"]
        )
        self.assertEqual(
            etrn_by_queue(["ETRN a.example", "ETRN @b.example"]),
            {"ETRN a.example": "ETRN #a.example"},
        )

    def test_interfaces(self) -> None:
        """The sources are sources, and each room keeps its promises."""
        provider, office = sides()
        verifyObject(IHeldMail, provider.held)
        verifyObject(IHeldMailWatch, office.customer)
        verifyObject(IExchanges, office.customer)
        verifyObject(ITurnedRoles, provider.provider)
        verifyObject(IMailSource, NoMail())
        verifyObject(IMailSource, CountedSource(NoMail(), Tally()))
        verifyObject(ITallyWatch, Unwatched())
        receiver = TurnedReceiver(
            office.peer, office.customer._receiver, Tally(), Unwatched(), nullcontext()
        )
        verifyObject(IRole, receiver)
        verifyObject(IAcceptedMail, receiver)
