"""The seams of the house: what each room promises the others.

The rooms meet here and are joined in `mta.service` by constructor arguments.  An interface has
at most five methods; those that one object fulfils together are joined by inheritance, so that
each user names the part that it needs.
"""

from mta.interfaces.access import (
    IAccessPolicy,
    IAuthorPolicy,
    IClientNames,
    ILogInPolicy,
    ILogInStore,
    IMailboxLists,
    IMailboxListStore,
    IMailingLists,
    IPairing,
    IReversal,
    IUsers,
)
from mta.interfaces.connection import (
    IChannel,
    IClientTLS,
    IConnection,
    IFirstRoles,
    IIdleWait,
    IRole,
    ISessionClock,
    ITLSContext,
    ITurnReplies,
)
from mta.interfaces.hosts import DomainNotFound, IOwnHost, IResolver, ResolutionFailed
from mta.interfaces.inspection import (
    IHeaderCheck,
    IInspector,
    IMessageInspector,
    ISessionInspector,
)
from mta.interfaces.meters import (
    ICommitMeter,
    IDeliveryMeter,
    IMeter,
    ISessionMeter,
    IStatusSource,
)
from mta.interfaces.queue import (
    IAcceptedMail,
    IDeliveryAgent,
    IHeldMail,
    IHeldMailWatch,
    IHeldSource,
    IMailSource,
    INotices,
    IPickedUpMail,
    IRouter,
    ITurnedRoles,
)
from mta.interfaces.spool import (
    IAttemptRecords,
    IAttempts,
    IHeldLeases,
    ILeases,
    IQueue,
    ISpool,
    ISpoolListener,
)

__all__ = [
    "DomainNotFound",
    "IAcceptedMail",
    "IAccessPolicy",
    "IAttemptRecords",
    "IAttempts",
    "IAuthorPolicy",
    "IChannel",
    "IClientNames",
    "IClientTLS",
    "ICommitMeter",
    "IConnection",
    "IDeliveryAgent",
    "IDeliveryMeter",
    "IFirstRoles",
    "IHeaderCheck",
    "IHeldLeases",
    "IHeldMail",
    "IHeldMailWatch",
    "IHeldSource",
    "IIdleWait",
    "IInspector",
    "ILeases",
    "ILogInPolicy",
    "ILogInStore",
    "IMailSource",
    "IMailboxListStore",
    "IMailboxLists",
    "IMailingLists",
    "IMessageInspector",
    "IMeter",
    "INotices",
    "IOwnHost",
    "IPairing",
    "IPickedUpMail",
    "IQueue",
    "IResolver",
    "IReversal",
    "IRole",
    "IRouter",
    "ISessionClock",
    "ISessionInspector",
    "ISessionMeter",
    "ISpool",
    "ISpoolListener",
    "IStatusSource",
    "ITLSContext",
    "ITurnReplies",
    "ITurnedRoles",
    "IUsers",
    "ResolutionFailed",
]
