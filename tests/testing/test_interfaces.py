"""The stand-ins of `mta.testing` keep the promises of what they stand for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementedBy, providedBy
from zope.interface.verify import verifyObject

from mta import interfaces, queued, testing
from mta.interfaces import (
    IAcceptedMail,
    IAccessPolicy,
    IClientNames,
    IClientTLS,
    IDeliveryAgent,
    IEnvelopeInspector,
    IFarLooks,
    IFirstRoles,
    IHeldMailWatch,
    IInspector,
    IMailboxLists,
    IMailingLists,
    IMailSource,
    IMessageInspector,
    INotices,
    IPairing,
    IPreviews,
    IQueue,
    IRenewals,
    IResolver,
    IReversal,
    IReverseNames,
    IRole,
    IRouter,
    ISealOpener,
    ISessionInspector,
    ISigner,
    ISpool,
    ITakenMail,
    ITLSContext,
    ITurnReplies,
    IUsers,
)
from mta.queued import IContent, IDraft

STAND_INS = (
    (testing.AcceptedMail(), [IAcceptedMail]),
    (testing.FakeClientNames(), [IClientNames]),
    (
        testing.FakeInspector(),
        [IEnvelopeInspector, IInspector, IMessageInspector, ISessionInspector],
    ),
    (testing.FakeMailingLists(), [IMailingLists]),
    (testing.FakeAccessPolicy(), [IAccessPolicy]),
    (testing.FakeAgent(), [IDeliveryAgent]),
    (testing.FakeContent(b"x"), [IContent]),
    (testing.FakeHeldMailWatch(), [IHeldMailWatch]),
    (testing.FakeMailSource(), [IMailSource]),
    (testing.FakeNotices(), [INotices]),
    (testing.FakeResolver({}, {}), [IResolver]),
    (testing.FakeMailboxLists(), [IFarLooks, IMailboxLists, IRenewals]),
    (testing.FakePairing(), [IPairing]),
    (testing.FakeReversal(), [IReversal]),
    (testing.FakeReverseNames({}), [IReverseNames]),
    (testing.FakeRouter({}), [IRouter]),
    (testing.FakeSealOpener(""), [ISealOpener]),
    (testing.FakeSigner(), [ISigner]),
    (testing.FakeTLS(), [IClientTLS, ITLSContext]),
    (testing.FakeUsers(), [IUsers]),
    (testing.GreetingRole(), [IRole]),
    (testing.MemoryDraft(1), [IDraft]),
    (testing.MemorySpool(), [ISpool, IPreviews, ITakenMail, IQueue]),
    (testing.OneRole(testing.GreetingRole()), [IFirstRoles]),
    (testing.TurnReplies(), [ITurnReplies]),
)


class InterfaceTests(SynchronousTestCase):
    """Each has the methods and attributes, with their signatures."""

    def test_all(self) -> None:
        """None is left out of the table, and none provides another interface."""
        for stand_in, expected in STAND_INS:
            self.assertEqual(set(expected), set(providedBy(stand_in)), stand_in)
            for interface in expected:
                self.assertTrue(verifyObject(interface, stand_in))
        ours = {
            getattr(module, name)
            for module in (interfaces, queued)
            for name in dir(module)
            if name.startswith("I")
        }
        kinds = {type(stand_in) for stand_in, _ in STAND_INS}
        for name in testing.__all__:
            made = getattr(testing, name)
            if isinstance(made, type) and set(implementedBy(made)) & ours:
                self.assertIn(made, kinds)
