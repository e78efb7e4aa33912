"""Greylisting: doubtful clients have to come again (RFC 6647)."""

from __future__ import annotations

from ipaddress import ip_network

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.authentication.spf import Result
from mta.inspection_settings import Greylist, GreylistWhen
from mta.inspectors.doubt import looks_dynamic
from mta.inspectors.greylist_table import GreylistTable
from mta.inspectors.sender_policy import SenderPolicies, SenderPolicy
from mta.limited_log import LimitedLog
from mta.mail import Mailbox, Reply
from mta.session import UNKNOWN_ADDRESS, Session

MAX_SPF_SECONDS = 10.0  # for SPF: a client waits for its reply to RCPT

_UNPROVED = frozenset({Result.NONE, Result.FAIL, Result.SOFTFAIL})


class Greylisting:
    """Lets clients wait that come for the first time."""

    log = Logger()

    def __init__(
        self,
        settings: Greylist,
        table: GreylistTable,
        senders: SenderPolicies,
        clock: IReactorTime,
    ) -> None:
        self.senders = senders
        self._settings = settings
        self._table = table
        self._clock = clock
        self._limited = LimitedLog(self.log)

    async def concerns(
        self, sender_policy: SenderPolicy, reverse_path: Mailbox, *, is_listed: bool
    ) -> bool:
        """Return whether messages with that reverse-path have to wait.

        `is_listed`: a list says so of the client.  Those whose SPF record names it never have to.
        """
        when = self._settings.when
        if when is GreylistWhen.NEVER and not is_listed:
            return False
        session = sender_policy.session
        spf = await self._spf(sender_policy, reverse_path)
        if spf is Result.PASS:
            return False
        if is_listed or when is GreylistWhen.ALWAYS or spf in _UNPROVED:
            return True
        if not session.name or session.client == UNKNOWN_ADDRESS:
            return True
        return looks_dynamic(session.name, session.client)

    async def wait(
        self, session: Session, reverse_path: Mailbox, recipient: Mailbox
    ) -> Reply | None:
        """Return the reply to a recipient for now.

        None: the message has come again, and may pass.
        """
        network = _network(session.client)
        name = f"{network} {reverse_path.domain} {recipient.domain}".lower()
        try:
            left = await self._table.wait(name, self._settings.delay, self._settings.keep)
        except OSError as error:
            self._limited.warn("table", "no greylisting: {error}", error=str(error))
            return None
        if left <= 0:
            return None
        self.log.info(
            "{client} is greylisted for {left:.0f} s: <{reverse_path}> to <{forward_path}>",
            client=session.client,
            left=left,
            reverse_path=str(reverse_path),
            forward_path=str(recipient),
        )
        return Reply(450, "4.7.1", (f"Greylisted, try again in {left + 1:.0f} seconds",))

    async def _spf(self, sender_policy: SenderPolicy, reverse_path: Mailbox) -> Result:
        if (known := sender_policy.remembered(reverse_path)) is not None:
            return known.result
        checking = Deferred.fromCoroutine(sender_policy.check(reverse_path))
        try:
            return (await checking.addTimeout(MAX_SPF_SECONDS, self._clock)).result
        except TimeoutError:
            return Result.TEMPERROR


def _network(client: str) -> str:
    """The network around a client: its hosts may take turns."""
    if client == UNKNOWN_ADDRESS:
        return client
    address = client.partition("%")[0]
    return str(ip_network((address, 64 if ":" in address else 24), strict=False))
