"""Stand-ins for the rooms of the program, for tests of extensions.

An agent, a users backend, a spool or a router meets the rest through `mta.interfaces`.  Each
interface that such a test needs has an implementation here, in memory and with a fake clock.
``docs/develop.rst`` has an example.  No other room imports this one.
"""

from mta.testing.connections import ConnectionPair, FakeTLS, MemoryTransport
from mta.testing.delivery import (
    ALICE,
    CAROL,
    TEXT,
    FakeAgent,
    FakeContent,
    FakeMailSource,
    FakeSigner,
    delivery,
    message,
)
from mta.testing.inspection import FakeInspector
from mta.testing.routing import (
    FakeHeldMailWatch,
    FakeNotices,
    FakeResolver,
    FakeReverseNames,
    FakeRouter,
)
from mta.testing.sealing import FakeSealOpener
from mta.testing.sessions import (
    AcceptedMail,
    FakeAccessPolicy,
    FakeClientNames,
    FakeMailboxLists,
    FakeMailingLists,
    FakePairing,
    FakeReversal,
    FakeUsers,
    GreetingRole,
    OneRole,
    TurnReplies,
)
from mta.testing.spool import MemoryDraft, MemorySpool
from mta.testing.threads import ImmediateThreads, ThreadClock

__all__ = [
    "ALICE",
    "CAROL",
    "TEXT",
    "AcceptedMail",
    "ConnectionPair",
    "FakeAccessPolicy",
    "FakeAgent",
    "FakeClientNames",
    "FakeContent",
    "FakeHeldMailWatch",
    "FakeInspector",
    "FakeMailSource",
    "FakeMailboxLists",
    "FakeMailingLists",
    "FakeNotices",
    "FakePairing",
    "FakeResolver",
    "FakeReversal",
    "FakeReverseNames",
    "FakeRouter",
    "FakeSealOpener",
    "FakeSigner",
    "FakeTLS",
    "FakeUsers",
    "GreetingRole",
    "ImmediateThreads",
    "MemoryDraft",
    "MemorySpool",
    "MemoryTransport",
    "OneRole",
    "ThreadClock",
    "TurnReplies",
    "delivery",
    "message",
]
