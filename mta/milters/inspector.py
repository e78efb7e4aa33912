"""A filter as an inspector, with a connection for each session."""

from __future__ import annotations

from collections.abc import Awaitable

from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import IInspector, IMessageInspector, ISessionInspector
from mta.limited_log import LimitedLog
from mta.mail import MailArgument, Reply
from mta.milters import events, packets
from mta.milters.connector import connect
from mta.milters.filter import Filter
from mta.milters.macros import Macros
from mta.milters.message import FilteredMessage
from mta.milters.negotiation import CONNECT, HELLO, UNKNOWN, Event
from mta.milters.packets import FilterFailure
from mta.milters.replies import TRY_LATER, Decision
from mta.milters.surroundings import Surroundings
from mta.session import Origin, Session
from mta.settings import Milter, OnFailure
from mta.smtp.errors import Refusal

UNAVAILABLE = Reply(550, "5.7.1", ("Service unavailable",))
FAILURES = {OnFailure.TEMPFAIL: TRY_LATER, OnFailure.REJECT: UNAVAILABLE}


@implementer(IInspector)
class MilterInspector:
    """Lets a filter look at mail."""

    log = Logger()
    needs_name = True

    def __init__(self, milter: Milter, surroundings: Surroundings) -> None:
        self._milter = milter
        self._surroundings = surroundings
        self._limited = LimitedLog(self.log)

    def session(self, session: Session) -> ISessionInspector:
        """See `IInspector.session`."""
        return FilteredSession(self._milter, self._surroundings, session, self._limited)


@implementer(ISessionInspector)
class FilteredSession:
    """Lets a filter look at one session.

    Where it refuses at the beginning, or failed at any time, the rest of the session goes by that:
    `refusal` is the reply to each MAIL, or `hold` the reason to hold each message.
    """

    log = Logger()

    def __init__(
        self, milter: Milter, surroundings: Surroundings, session: Session, limited: LimitedLog
    ) -> None:
        self.milter = milter
        self.surroundings = surroundings
        self.filter: Filter | None = None
        self._session = session
        self._limited = limited
        self.refusal: Reply | None = None
        self.hold = ""
        self._begins_anew = False  # with the next message, by another connection

    async def connected(self) -> None:
        """See `ISessionInspector.connected`."""
        await self._attempt(self._connect())

    async def hello(self) -> None:
        """See `ISessionInspector.hello`."""
        if self.filter is not None and self.refusal is None:
            await self._attempt(self._begin(HELLO, packets.text(self._session.hello.encode())))

    async def unknown(self, line: bytes) -> None:
        """See `ISessionInspector.unknown`."""
        if self.filter is not None and self.refusal is None:
            try:
                await self.filter.tell(UNKNOWN, packets.text(line))
            except FilterFailure as failure:
                self.failed(failure)

    async def message(
        self, id: str, argument: MailArgument, origin: Origin
    ) -> IMessageInspector | None:
        """See `ISessionInspector.message`."""
        if self._begins_anew:
            self._begins_anew = False
            await self.connected()
            if self._session.hello:
                await self.hello()
        if self.refusal is not None:
            self.refused(id, self.refusal)
            raise Refusal(self.refusal)
        if self.filter is None and not self.hold:
            return None
        message = FilteredMessage(self, id, self.hold)
        try:
            await message.begin(argument)
        except BaseException:
            message.abort()
            raise
        return message

    def close(self) -> None:
        """See `ISessionInspector.close`."""
        if self.filter is not None:
            self.filter.close()
            self.filter = None

    # --- for messages, too

    def end_message(self) -> None:
        """End the message under way, however far it came.

        Filters expect it between messages; one that is out of step is left.
        """
        if self.filter is not None:
            if self.filter.is_in_step:
                self.filter.end_message()
            else:
                self.filter.abort()
                self.filter = None
                self._begins_anew = True

    def failed(self, failure: FilterFailure, id: str = "") -> str:
        """Do what is configured where the filter fails.

        Returns why the message is to be held, where it is.  Raises Refusal.
        """
        name, on_failure = self.milter.name, self.milter.on_failure
        self._limited.warn(
            name,
            "filter {filter} failed: {reason} (on_failure: {on_failure})",
            filter=name,
            reason=str(failure),
            on_failure=on_failure.value,
        )
        if id:
            self.log.info(
                "{queue_id} not filtered by {filter}: {reason}",
                queue_id=id,
                filter=name,
                reason=str(failure),
            )
        self.surroundings.meter.filtered(name, "failed")
        reply = FAILURES.get(on_failure)
        hold = f"filter {name} failed: {failure}" if on_failure is OnFailure.QUARANTINE else ""
        if not failure.is_in_step:
            if self.filter is not None:
                self.filter.abort()
                self.filter = None
            self.refusal, self.hold = reply, hold
        if reply is not None:
            raise Refusal(reply)
        return hold

    def refused(self, id: str, reply: Reply) -> None:
        """Log that the filter refused a message, or something of it."""
        name = self.milter.name
        self.log.info(
            "{queue_id} refused by filter {filter}: {reply}",
            queue_id=id,
            filter=name,
            reply=str(reply),
        )
        result = "refused" if reply.is_permanent else "deferred"
        self.surroundings.meter.filtered(name, result)

    # --- the beginning

    async def _connect(self) -> None:
        milter, surroundings = self.milter, self.surroundings
        connection = await connect(surroundings.reactor, milter.socket, milter.timeouts.connect)
        macros = Macros(surroundings.hostname, self._session, self._session.service.value)
        try:
            self.filter = await Filter.open(connection, macros, milter.timeouts)
        except BaseException:
            connection.abort()
            raise
        await self._begin(CONNECT, events.client(self._session))

    async def _begin(self, event: Event, data: bytes) -> None:
        """Tell an event of the session."""
        assert self.filter is not None
        if await self.filter.tell(event, data) is Decision.ACCEPT:
            self.close()

    async def _attempt(self, telling: Awaitable[None]) -> None:
        """Let the filter be told; each MAIL hears what it refuses."""
        try:
            try:
                await telling
            except FilterFailure as failure:
                self.failed(failure)
        except Refusal as refusal:
            self.refusal = refusal.reply
            if refusal.reply.code == 421:
                raise
