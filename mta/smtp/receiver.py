"""The receiver role: from our greeting to QUIT or TURN (RFC 5321 section 4).

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
from mta.smtp.conversation import LINE, Answer, Conversation, Parting, Phase, Restart
from mta.smtp.errors import Refusal
from mta.smtp.grammar import ProxiedClient
from mta.smtp.receiver_config import ReceiverConfig
from mta.smtp.verbs import KNOWN, VERBS, Unread, Verb
from mta.smtp.wire import LineTooLong

__all__ = ["LINE", "VERBS", "Receiver", "ReceiverConfig"]

BAD_COMMANDS = frozenset({500, 501, 502, 503, 504, 555})


@implementer(IRole)
class Receiver:
    """Receiver-SMTP: one conversation.

    `turned_peer` names the peer that handed us the server's role by a turn.  `client` is whom
    a proxy named by XCLIENT.  `after_tls`: the conversation goes on after STARTTLS, with
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
        self._talk = talk = Conversation(
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
            talk.say(Reply(421, "4.4.2", ("Timed out waiting for you",)))
            raise
        finally:
            talk.end()
            self._config.access.disconnect(talk.session)

    # --- what comes before the first command

    async def _opened(self) -> bool:
        """Say the greeting; False: the connection is to be closed.

        The access is asked first: who hangs in a handshake is counted as well.
        """
        talk, channel = self._talk, self._talk.channel
        try:
            await self._config.access.connect(talk.session)
            talk.admitted()
            if self._begins_with_tls:
                await channel.start_tls()
                talk.session.tls = channel.tls
            if talk.inspection is not None:
                await talk.inspection.connected()
            if not self._after_tls:
                await self._await_silence()
                talk.say(replies.service_ready(self._config.hostname))
        except Refusal as refusal:
            if self._begins_with_tls or self._after_tls:
                return False  # there is no way yet, or no more, to say anything unasked
            talk.say(refusal.reply)
            talk.is_refused = True
            return refusal.reply.code != 421  # else the client says QUIT, RFC 5321 section 3.1
        return True

    @property
    def _begins_with_tls(self) -> bool:
        """Whether a handshake is the next thing on the connection."""
        implicit = self._config.tls is ListenerTLS.IMPLICIT
        return (self._after_tls or implicit) and self._talk.channel.tls is None

    async def _await_silence(self) -> None:
        """Hold the greeting back: who talks before it does not listen to replies."""
        delay = self._config.limits.greet_delay
        if delay and self._config.service is Service.SMTP and not self._turned_peer:
            await self._talk.channel.sleep(delay)
            if len(self._talk.channel.wire):
                raise Refusal(replies.TALKED_EARLY)

    # --- commands

    async def _converse(self) -> IRole | None:
        talk = self._talk
        while True:
            try:
                answer = await self._answer(await talk.line())
            except Refusal as refusal:
                answer = self._refused(refusal.reply)
            except LineTooLong:
                answer = self._refused(self._counted() or replies.LINE_TOO_LONG)
            if isinstance(answer, Reply):
                talk.say(answer)
            elif isinstance(answer, tuple):
                for reply in answer:
                    talk.say(reply)
            else:
                return self._next_role(answer)
            await talk.yield_turn()

    def _next_role(self, answer: Parting | Restart) -> IRole | None:
        if answer.reply is not None:
            self._talk.say(answer.reply)
        if isinstance(answer, Parting):
            return answer.successor
        return Receiver(self._config, client=answer.client, after_tls=answer.after_tls)

    async def _answer(self, line: bytes) -> Answer:
        """Look the command up, and answer it where it may come now."""
        talk = self._talk
        if too_many := self._counted():
            raise Refusal(too_many)
        if grammar.is_foreign(line):
            raise Refusal(replies.NOT_SMTP)
        command = grammar.parse_command(line)
        verb = self._verbs.get(command.verb)
        if verb is None:
            if talk.inspection is not None:
                await talk.inspection.unknown(line)
            unknown = command.verb not in KNOWN
            raise Refusal(replies.COMMAND_UNRECOGNISED if unknown else replies.NOT_IMPLEMENTED)
        self._require_fit(verb, line)
        if talk.phase not in verb.phases:
            if verb.out_of_phase is not None:
                await verb.out_of_phase(talk, command.argument)
            greeted = talk.phase is Phase.GREETED
            raise Refusal(replies.HELLO_FIRST if greeted else replies.BAD_SEQUENCE)
        return await verb.answer(talk, command.argument)

    def _counted(self) -> Reply | None:
        """Count a command; returns the reply where it is one too many."""
        cost = self._talk.cost
        cost.command()
        return replies.TOO_MANY_COMMANDS if cost.is_exhausted and not self._turned_peer else None

    def _require_fit(self, verb: Verb, line: bytes) -> None:
        """Raise Refusal where a command can't be answered, whatever its phase."""
        talk = self._talk
        if len(line) + 2 > verb.line:
            raise Refusal(replies.LINE_TOO_LONG)
        if self._turned_peer and not verb.when_turned:
            raise Refusal(replies.NOT_IMPLEMENTED)
        if talk.awaits_tls and not verb.before_tls:
            raise Refusal(replies.TLS_NEEDED)
        if verb.unread is Unread.REFUSED and len(talk.channel.wire):
            raise Refusal(replies.BAD_SEQUENCE)
        if verb.is_idle and not self._turned_peer and not talk.cost.idle_command():
            raise Refusal(replies.NO_MAIL_COMES)

    def _refused(self, reply: Reply) -> Answer:
        """Count bad commands; 421 ends the session (RFC 5321 section 3.8)."""
        if reply.code in BAD_COMMANDS and not self._talk.cost.error(self._config.limits.errors):
            reply = replies.TOO_MANY_ERRORS
        return Parting(reply) if reply.code == 421 else reply
