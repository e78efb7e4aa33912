"""The receiver role, from greeting to QUIT or TURN (RFC 5321).

`mta.smtp.verbs` has the table of commands.  Answers return their reply; only the loop here
writes.  Replies to a pipelined group go out together (RFC 2920 section 3.2).
"""

from __future__ import annotations

from zope.interface import implementer

from mta.interfaces import IChannel, IRole
from mta.mail import Reply
from mta.session import ChannelTimeout
from mta.settings import ListenerTLS, Service
from mta.smtp import grammar, replies
from mta.smtp.conversation import MAX_LINE, Answer, Conversation, EndOfRole, Phase, Restart
from mta.smtp.errors import Refusal
from mta.smtp.grammar import ProxiedClient
from mta.smtp.receiver_config import ReceiverConfig
from mta.smtp.verbs import KNOWN_VERBS, VERBS, Unread, Verb
from mta.smtp.wire import LineTooLong

__all__ = ["MAX_LINE", "VERBS", "Receiver", "ReceiverConfig"]

BAD_COMMANDS = frozenset({500, 501, 502, 503, 504, 555})


@implementer(IRole)
class Receiver:
    """Receiver-SMTP: one conversation.

    `turned_peer` names the peer that handed us the server's role by a turn.  `client` is the one
    that a proxy named by XCLIENT.  `after_tls`: the conversation goes on after STARTTLS, with
    nothing remembered (RFC 3207 section 4.2).
    """

    def __init__(
        self,
        config: ReceiverConfig,
        *,
        turned_peer: str = "",
        client: ProxiedClient | None = None,
        after_tls: bool = False,
    ) -> None:
        self._config = config
        self._verbs = VERBS[config.service]
        self._turned_peer = turned_peer
        self._client = client
        self._after_tls = after_tls

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        self._conversation = conversation = Conversation(
            self._config,
            channel,
            tuple(self._verbs),
            turned_peer=self._turned_peer,
            client=self._client,
        )
        try:
            if not await self._opened():
                return None
            return await self._converse()
        except ChannelTimeout:
            conversation.send(Reply(421, "4.4.2", ("Timed out waiting for you",)))
            raise
        finally:
            conversation.end()
            self._config.access.disconnect(conversation.session)

    # --- what comes before the first command

    async def _opened(self) -> bool:
        """Send the greeting.  False: the connection is to be closed.

        The access policy is asked first: a client that hangs in a handshake is counted as well.
        """
        conversation, channel = self._conversation, self._conversation.channel
        try:
            await self._config.access.connect(conversation.session, conversation)
            conversation.admitted()
            if not self._after_tls:  # else the client's handshake comes meanwhile
                await conversation.await_others()
            if self._begins_with_tls:
                conversation.cost.handshake()
                await channel.start_tls(b"" if self._after_tls else channel.wire.take())
                conversation.session.tls = channel.tls
            if conversation.inspection is not None:
                await self._look_up_name()
                await conversation.inspection.connected()
            if not self._after_tls:
                await self._await_silence()
                conversation.send(replies.service_ready(self._config.hostname))
        except Refusal as refusal:
            if refusal.delay:
                await channel.sleep(refusal.delay)
            if self._begins_with_tls or self._after_tls:
                return False  # there is no way yet, or no more, to say anything unasked
            conversation.send(refusal.reply)
            conversation.is_refused = True
            return refusal.reply.code != 421  # else the client says QUIT, RFC 5321 section 3.1
        return True

    async def _look_up_name(self) -> None:
        """Look up the name of the client, where an inspector needs it.

        On a turned connection the client is a peer that we know.
        """
        session, reverse_names = self._conversation.session, self._config.reverse_names
        if reverse_names is not None and not self._turned_peer:
            session.pointer, session.name = await reverse_names.of(session.client)

    @property
    def _begins_with_tls(self) -> bool:
        """Tell whether a handshake is the next thing on the connection."""
        implicit = self._config.tls is ListenerTLS.IMPLICIT
        return (self._after_tls or implicit) and self._conversation.channel.tls is None

    async def _await_silence(self) -> None:
        """Hold the greeting back.

        A client that talks before it does not listen to replies.
        """
        delay = self._config.limits.greet_delay
        if delay and self._config.service is Service.SMTP and not self._turned_peer:
            await self._conversation.channel.sleep(delay)
            if len(self._conversation.channel.wire):
                raise Refusal(replies.TALKED_EARLY)

    # --- commands

    async def _converse(self) -> IRole | None:
        conversation = self._conversation
        while True:
            try:
                answer = await self._answer(await conversation.line())
            except Refusal as refusal:
                answer = self._refused(refusal.reply, is_error=refusal.is_error)
            except LineTooLong:
                answer = self._refused(self._counted() or replies.LINE_TOO_LONG)
            if isinstance(answer, Reply):
                conversation.send(answer)
            elif isinstance(answer, tuple):
                for reply in answer:
                    conversation.send(reply)
            else:
                return self._next_role(answer)
            await conversation.let_others_work()

    def _next_role(self, answer: EndOfRole | Restart) -> IRole | None:
        if answer.reply is not None:
            self._conversation.send(answer.reply)
        if isinstance(answer, EndOfRole):
            return answer.next_role
        return Receiver(self._config, client=answer.client, after_tls=answer.after_tls)

    async def _answer(self, line: bytes) -> Answer:
        """Look the command up, and answer it where it may come now."""
        conversation = self._conversation
        if too_many := self._counted():
            raise Refusal(too_many)
        if grammar.is_foreign(line):
            raise Refusal(replies.NOT_SMTP)
        command = grammar.parse_command(line)
        verb = self._verbs.get(command.verb)
        if verb is None:
            if conversation.inspection is not None:
                await conversation.inspection.unknown(line)
            unknown = command.verb not in KNOWN_VERBS
            raise Refusal(replies.COMMAND_UNRECOGNISED if unknown else replies.NOT_IMPLEMENTED)
        self._require_fit(verb, line)
        if conversation.phase not in verb.phases:
            if verb.out_of_phase is not None:
                await verb.out_of_phase(conversation, command.argument)
            greeted = conversation.phase is Phase.GREETED
            raise Refusal(replies.HELLO_FIRST if greeted else replies.BAD_SEQUENCE)
        return await verb.answer(conversation, command.argument)

    def _counted(self) -> Reply | None:
        """Count a command; returns the reply where it is one too many."""
        cost = self._conversation.cost
        cost.command()
        if self._turned_peer:
            return None
        if cost.begin_charge() and (refusal := self._conversation.charged()):
            return refusal
        return replies.TOO_MANY_COMMANDS if cost.is_exhausted else None

    def _require_fit(self, verb: Verb, line: bytes) -> None:
        """Raise Refusal where a command can't be answered, whatever its phase."""
        conversation = self._conversation
        if len(line) + 2 > verb.max_line:
            raise Refusal(replies.LINE_TOO_LONG)
        if self._turned_peer and not verb.when_turned:
            raise Refusal(replies.NOT_IMPLEMENTED)
        if conversation.awaits_tls and not verb.before_tls:
            raise Refusal(replies.TLS_NEEDED)
        if verb.unread is Unread.REFUSED and len(conversation.channel.wire):
            raise Refusal(replies.BAD_SEQUENCE)
        if verb.is_idle and not self._turned_peer and not conversation.cost.idle_command():
            raise Refusal(replies.NO_MAIL_COMES)

    def _refused(self, reply: Reply, *, is_error: bool = False) -> Answer:
        """Count bad commands; 421 ends the session (RFC 5321 section 3.8)."""
        cost, limit = self._conversation.cost, self._config.limits.errors
        is_error = is_error or reply.code in BAD_COMMANDS
        if is_error and not cost.error(limit):
            reply = replies.TOO_MANY_ERRORS
        return EndOfRole(reply) if reply.code == 421 else reply
