"""The values and seams that all receivers of a listener share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mta.interfaces import (
    IAcceptedMail,
    IAccessPolicy,
    IClientNames,
    IFarLooks,
    IHeaderCheck,
    IInspector,
    IMailboxLists,
    IMailingLists,
    IPairing,
    IPassThrough,
    IRenewals,
    IReversal,
    IReverseNames,
    IRoundRobin,
    ISealOpener,
    ISessionMeter,
    ISpool,
    IUsers,
)
from mta.settings import JunkUse, Limits, ListenerTLS, Service
from mta.smtp.cost import Turns
from mta.smtp.second_copies import SecondCopies


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """The values and seams that all receivers of a listener share.

    `accepted_mail` gets what was committed, `pass_through` what may go on before that; `now`
    gives seconds since the epoch.  Without `lists` EXPN is not offered.  `checks` look at header
    sections as they came, then `inspectors` at all of the mail, in this order; `reverse_names` is
    there where one of them needs the name of the client, `second_copies` knows what peers bring
    again, `opener` opens what they have sealed, and `junk` is done with what inspectors take for
    that.
    `hide_client`: what users submit does not tell where they are.  `idle_timeout`: seconds between
    transactions after which the client must be gone, where `limits` give it more; 0: no matter.
    `takes_origins`: on a turned connection, the peer's word for who brought its mail is taken.
    `node`: the name of this host among those that share a spool.  `turns` are those
    of all sessions that have much to do, `content_order` is that of all with much content, or with
    messages said ahead.
    """

    hostname: str
    spool: ISpool
    accepted_mail: IAcceptedMail
    access: IAccessPolicy
    limits: Limits
    now: Callable[[], float]
    service: Service = Service.SMTP
    tls: ListenerTLS = ListenerTLS.OFF
    users: IUsers | None = None
    reversal: IReversal | None = None
    pairing: IPairing | None = None
    renewals: IRenewals | None = None
    mailboxes: IMailboxLists | None = None
    far_looks: IFarLooks | None = None
    names: IClientNames | None = None
    lists: IMailingLists | None = None
    meter: ISessionMeter | None = None
    checks: Sequence[IHeaderCheck] = ()
    inspectors: Sequence[IInspector] = ()
    reverse_names: IReverseNames | None = None
    pass_through: IPassThrough | None = None
    second_copies: SecondCopies | None = None
    opener: ISealOpener | None = None
    junk: JunkUse = JunkUse.FOLDER
    cleartext_auth: bool = False
    hide_client: bool = False
    idle_timeout: float = 0.0
    takes_origins: bool = False
    node: str = ""
    turns: Turns = field(default_factory=Turns)
    content_order: IRoundRobin | None = None
