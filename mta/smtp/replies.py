"""Replies on the wire, and stock replies by name.  RFC 5321 section 4.2, RFC 2034.

Greetings, the answers to EHLO and intermediate replies bear no enhanced code
(RFC 2034 section 4).
"""

from __future__ import annotations

import re
from functools import lru_cache

from mta.mail import Reply
from mta.smtp.errors import PeerFault

MAX_OCTETS = 512  # of a reply line, CRLF included, RFC 5321 section 4.5.3.1.5
MAX_LINES = 100  # of one reply of a peer
MAX_TEXT = 2048  # octets kept of one reply: of a peer's to a thousand recipients, all are kept

_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_REPLY_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ \t-])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |\Z)")


@lru_cache(maxsize=256)  # the stock replies stay in it, being asked for all the time
def encode(reply: Reply) -> bytes:
    """The reply as octets, CRLF and all, whatever its text holds."""
    head = f"{reply.enhanced} ".encode() if reply.enhanced else b""
    room = MAX_OCTETS - len(b"250-\r\n") - len(head)
    *pieces, last = [piece for line in reply.lines or ("",) for piece in _fold(line, room)]
    lines = [b"%d-%b%b\r\n" % (reply.code, head, piece) for piece in pieces]
    return b"".join((*lines, b"%d %b%b\r\n" % (reply.code, head, last)))


def _fold(line: str, room: int) -> list[bytes]:
    """Return the line in pieces of at most `room` octets.  What could end it is made a space."""
    octets = _UNSAFE.sub(" ", line).encode("utf-8", "replace")
    pieces = []
    while len(octets) > room:
        cut = octets.rfind(b" ", 0, room) + 1 or room
        while octets[cut] & 0xC0 == 0x80:  # inside a character
            cut -= 1
        pieces.append(octets[:cut])
        octets = octets[cut:]
    return [*pieces, octets]


class ReplyParser:
    """Puts the lines of a reply together.  It is ready for the next reply after the last line."""

    __slots__ = ("_code", "_count", "_enhanced", "_lines", "_room")

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._code = ""
        self._enhanced = ""
        self._lines: list[str] = []
        self._count = 0
        self._room = MAX_TEXT

    @property
    def is_inside(self) -> bool:
        """Tell whether more lines of a reply are to come."""
        return bool(self._count)

    def feed_line(self, line: bytes) -> Reply | None:
        """The reply, once `line` (without its end) was its last one.

        An empty line inside a reply is one without text; what is beyond `MAX_TEXT` is left out.
        Text that is not UTF-8 is replaced, and control characters are made spaces: it ends in logs
        and in the header sections of notices.  Raises PeerFault for what is no reply.
        """
        if not self._count and line[3:4] != b"-":
            return _one_line(line)
        return self._add(line)

    def _add(self, line: bytes) -> Reply | None:
        if not line and self._count:
            line = f"{self._code}-".encode()
        parts = _REPLY_LINE.fullmatch(line)
        if parts is None:
            raise PeerFault(f"not a reply: {line[:60]!r}")
        code = parts[1].decode("ascii")
        if self._count and code != self._code:
            raise PeerFault(f"a reply changes its code from {self._code} to {code}")
        if self._count >= MAX_LINES:
            raise PeerFault(f"a reply of more than {MAX_LINES} lines")
        self._code = code
        self._count += 1
        text = self._without_enhanced((parts[3] or b"").decode("utf-8", "replace"))
        if self._room > 0:
            self._lines.append(text if len(text) <= self._room else f"{text[: self._room]}...")
        self._room -= len(text)
        if parts[2] == b"-":
            return None
        reply = Reply(int(code), self._enhanced, tuple(self._lines))
        self._begin()
        return reply

    def _without_enhanced(self, text: str) -> str:
        """Return the text of a line.  The first enhanced code of our class is the reply's."""
        enhanced = _ENHANCED.match(text)
        if enhanced and text[0] == self._code[0]:
            self._enhanced = self._enhanced or enhanced[1]
            if enhanced[1] == self._enhanced:
                text = text[enhanced.end() :]
        return _UNSAFE.sub(" ", text)


@lru_cache(maxsize=256)  # hosts say the same few words to each envelope
def _one_line(line: bytes) -> Reply | None:
    """The reply that one line is.  Raises PeerFault."""
    return ReplyParser()._add(line)


def service_ready(domain: str) -> Reply:
    """Our greeting (RFC 5321 section 4.3.1)."""
    return Reply(220, "", (f"{domain} Service ready",))


def closing(domain: str) -> Reply:
    """The answer to QUIT."""
    return Reply(221, "2.0.0", (f"{domain} Service closing transmission channel",))


def shutting_down(domain: str) -> Reply:
    """Return the reply to sessions when the service stops."""
    return Reply(421, "4.3.2", (f"{domain} Service shutting down, closing transmission channel",))


def queued(id: str) -> Reply:
    """Return the reply to content that is committed."""
    return Reply(250, "2.0.0", (f"OK queued as {id}",))


def etrn_pending(messages: int) -> Reply:
    """Return the reply to ETRN: a run for so many messages.  See RFC 1985 section 5.3."""
    return Reply(253, "2.0.0", (f"OK, {messages} pending messages for node started",))


OK = Reply(250, "2.0.0", ("OK",))
SENDER_OK = Reply(250, "2.1.0", ("Sender OK",))
RECIPIENT_OK = Reply(250, "2.1.5", ("Recipient OK",))
UNDER_WAY = Reply(451, "4.3.0", ("You brought this message before, and it is looked at still",))
ALREADY_TAKEN = Reply(250, "2.0.0", ("OK, you brought this message before",))
CANNOT_VERIFY = Reply(252, "2.1.5", ("Cannot VRFY user, but will accept message for delivery",))
START_CONTENT = Reply(354, "", ("Start mail input; end with <CRLF>.<CRLF>",))

START_TLS = Reply(220, "2.0.0", ("Ready to start TLS",))
TLS_NEEDED = Reply(530, "5.7.0", ("Must issue a STARTTLS command first",))

AUTH_OK = Reply(235, "2.7.0", ("Authentication successful",))
NO_SUCH_PAIRING = Reply(535, "5.7.8", ("No such pairing",))
AUTH_CANCELLED = Reply(501, "5.7.0", ("Authentication cancelled",))
AUTH_FAILED = Reply(535, "5.7.8", ("Authentication credentials invalid",))
AUTH_UNAVAILABLE = Reply(454, "4.7.0", ("Temporary authentication failure",))
BAD_BASE64 = Reply(501, "5.5.2", ("Cannot decode base64",))
ENCRYPTION_NEEDED = Reply(538, "5.7.11", ("Encryption required for this mechanism",))
MECHANISM_TOO_WEAK = Reply(534, "5.7.9", ("Authentication mechanism is too weak",))
MECHANISM_UNKNOWN = Reply(504, "5.5.4", ("Unrecognized authentication mechanism",))

COMMAND_UNRECOGNISED = Reply(500, "5.5.1", ("Command unrecognized",))
MALFORMED = Reply(500, "5.5.2", ("Syntax error, command unrecognized",))
LINE_TOO_LONG = Reply(500, "5.5.2", ("Line too long",))
XFORWARD_DENIED = Reply(550, "5.7.0", ("You may not tell whose mail this is",))
BAD_ARGUMENT = Reply(501, "5.5.4", ("Syntax error in parameters or arguments",))
NOT_IMPLEMENTED = Reply(502, "5.5.1", ("Command not implemented",))
BAD_SEQUENCE = Reply(503, "5.5.1", ("Bad sequence of commands",))
HELLO_FIRST = Reply(503, "5.5.1", ("Send EHLO or HELO first",))
PARAMETER_UNKNOWN = Reply(555, "5.5.4", ("Parameter not recognized or not implemented",))
BAD_REVERSE_PATH = Reply(501, "5.1.7", ("Bad sender address syntax",))
ROUTE_DENIED = Reply(550, "5.7.1", ("Addresses with a route in them are not relayed",))
BAD_FORWARD_PATH = Reply(501, "5.1.3", ("Bad recipient address syntax",))
NO_SMTPUTF8 = Reply(553, "5.6.7", ("Internationalized address or message not permitted here",))
NO_RECIPIENTS = Reply(554, "5.5.1", ("No valid recipients",))
TALKED_EARLY = Reply(554, "5.5.1", ("You talked before the greeting",))
TOO_MANY_COMMANDS = Reply(421, "4.7.0", ("Too many commands without any mail, closing",))
NOT_SMTP = Reply(421, "4.7.0", ("This is a mail server, and that is not SMTP",))
NO_MAIL_COMES = Reply(503, "5.5.1", ("Too many commands without any mail",))
TOO_MANY_ERRORS = Reply(421, "4.7.0", ("Too many errors, closing transmission channel",))

NO_SUCH_USER = Reply(550, "5.1.1", ("No such user here",))
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", ("Too many recipients",))
TOO_MANY_TRANSACTIONS = Reply(421, "4.5.3", ("Too many messages on this connection",))
TOO_BIG = Reply(552, "5.3.4", ("Message size exceeds fixed maximum message size",))
TOO_BIG_FOR_PEER = Reply(552, "5.3.4", ("The next server does not take messages of this size",))
BARE_LINE_END = Reply(554, "5.6.0", ("Content holds a bare CR, a bare LF or a NUL",))
CONVERSION_FAILED = Reply(
    554,
    "5.6.3",
    ("The next server can't take this content as it is, and it can't be converted without loss",),
)
UNSENDABLE = Reply(
    554, "5.6.3", ("Content holds a bare CR, a bare LF or a NUL, and can't be sent on as it is",)
)
HEADER_TOO_LONG = Reply(554, "5.6.0", ("The header section is too long to be checked",))
AUTHOR_UNCLEAR = Reply(550, "5.7.1", ("From: must name the author once, as an address of yours",))
TLS_NOT_KEPT = Reply(
    550, "5.7.30", ("REQUIRETLS support required, which the next server does not offer",)
)
NOT_OPENED = Reply(451, "4.7.5", ("This sealed message can't be opened here: please keep it",))
SEALED = Reply(
    451, "4.7.0", ("It is sealed for the peer, which does not offer to take it so on this link",)
)
LOOPS_BACK = Reply(554, "5.4.6", ("Mail for this domain loops back to this server",))
MAIL_LOOP = Reply(554, "5.4.6", ("Too many Received: fields, the message is in a loop",))
FORWARD_LOOP = Reply(554, "5.4.6", ("Mail loop: this address has forwarded it before",))
SPOOL_FULL = Reply(452, "4.3.1", ("Insufficient system storage",))
LOCAL_ERROR = Reply(451, "4.3.0", ("Requested action aborted: local error in processing",))

REVERSING = Reply(250, "2.0.0", ("OK now reversing the connection",))
TURN_NEEDS_AUTH = Reply(530, "5.7.0", ("Authentication required",))
TURN_DENIED = Reply(502, "5.7.0", ("You may not turn this connection",))
ATRN_REFUSED = Reply(450, "4.7.1", ("ATRN request refused",))
ATRN_LATER = Reply(451, "4.3.0", ("Unable to process ATRN request now",))
NO_MAIL = Reply(453, "4.2.0", ("You have no mail",))
ETRN_STARTED = Reply(250, "2.0.0", ("OK, queuing for node started",))
ETRN_NO_MAIL = Reply(251, "2.0.0", ("OK, no messages waiting for node",))
ETRN_PENDING = Reply(252, "2.0.0", ("OK, pending messages for node started",))
ETRN_DENIED = Reply(459, "4.7.0", ("Node not allowed",))
ETRN_LATER = Reply(458, "4.3.0", ("Unable to queue messages for node",))
