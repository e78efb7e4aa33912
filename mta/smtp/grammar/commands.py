"""Command lines: octets to values, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mta.mail import NULL_PATH, MailArgument, Mailbox, Recipient, Reply
from mta.session import PairingRequest
from mta.smtp import replies
from mta.smtp.errors import LocalFault, Refusal
from mta.smtp.grammar.addresses import (
    HELLO,
    MAILBOX,
    MAX_DOMAIN,
    SOURCE_ROUTE,
    compiled,
    mailbox_of,
    parse_domain,
    parse_mailbox,
    path,
)
from mta.smtp.grammar.parameters import (
    MAIL_PARAMETERS,
    PARAMETER,
    RCPT_PARAMETERS,
    read_parameters,
)

MAX_DOMAINS = 100  # that one ATRN may name

_PARAMETERS = r"(?: +(?P<parameters>.*))?"
# Commands of HTTP and SIP, a request line of either or of RTSP, SSH, what begins with a control
# character: TLS, SOCKS, remote desktops; and header fields, whatever they belong to.
_FOREIGN = re.compile(
    rb"[\x00-\x08\x0e-\x1f]|SSH-|(?i:[A-Z]+ +[^ ]+ +(?:HTTP|SIP|RTSP)/[0-9])"
    rb"|(?i:GET|POST|HEAD|PUT|DELETE|OPTIONS|CONNECT|TRACE|PATCH|PRI|PROPFIND"
    rb"|INVITE|REGISTER|SUBSCRIBE|PUBLISH)(?: |\Z)"
    rb"|[!-9;-~]+:[ \t]"
)
_COMMAND = re.compile(rb"([A-Za-z0-9-]+)(?: +([^\0\r\n]*))?")
_FROM = rf"(?ai:FROM): *<(?:{SOURCE_ROUTE}{MAILBOX})?>{_PARAMETERS}"
_TO = rf"(?ai:TO): *<(?:{SOURCE_ROUTE}{MAILBOX}|(?P<postmaster>(?ai:postmaster)))>{_PARAMETERS}"
_CHUNK = re.compile(rb"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)
_PAIRING = re.compile(r"([0-9a-f]{16}) ([0-9a-f]{32}) ([0-9a-f]{32})")
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Command:
    """A command line: the verb in upper case, and its argument."""

    verb: str
    argument: bytes


def is_foreign(line: bytes) -> bool:
    """Return whether a line, or its beginning, belongs to another protocol.

    A browser or a web server that was led to our port says HTTP, a telephone SIP; TLS, SOCKS and
    others begin with a control character.
    """
    return bool(_FOREIGN.match(line))


def parse_command(line: bytes) -> Command:
    """Parse a command line without its CRLF.  White space at its end means nothing."""
    parts = _COMMAND.fullmatch(line.rstrip(b" \t"))
    if parts is None:
        raise Refusal(replies.MALFORMED)
    return Command(parts[1].decode("ascii").upper(), parts[2] or b"")


def parse_mail(argument: bytes, offered: frozenset[str]) -> MailArgument:
    """Parse the argument of MAIL.  `offered`: the parameters that this session may use."""
    parts = _matched(_FROM, argument, replies.BAD_REVERSE_PATH)
    reverse_path = NULL_PATH
    if parts["local"] is not None:
        reverse_path = _address(parts, replies.BAD_REVERSE_PATH)
    mail = MailArgument(
        reverse_path, **read_parameters(parts["parameters"], MAIL_PARAMETERS, offered)
    )
    if not (mail.smtputf8 or argument.isascii()):
        raise Refusal(replies.NO_SMTPUTF8)
    return mail


def parse_rcpt(argument: bytes, offered: frozenset[str], *, smtputf8: bool) -> Recipient:
    """Parse the argument of RCPT."""
    parts = _matched(_TO, argument, replies.BAD_FORWARD_PATH)
    if parts["postmaster"] is not None:
        forward_path = Mailbox(parts["postmaster"])
    else:
        forward_path = _address(parts, replies.BAD_FORWARD_PATH)
    recipient = Recipient(
        forward_path, **read_parameters(parts["parameters"], RCPT_PARAMETERS, offered)
    )
    if not (smtputf8 or argument.isascii()):
        raise Refusal(replies.NO_SMTPUTF8)
    return recipient


def parse_hello(argument: bytes) -> str:
    """Parse the name that a client gives itself.

    What real clients send is taken, and nothing harmful.
    """
    if len(argument) > MAX_DOMAIN or not HELLO.fullmatch(argument):
        raise Refusal(replies.BAD_ARGUMENT)
    return argument.decode("ascii")


def parse_bdat(argument: bytes) -> tuple[int, bool]:
    """Return the octets of a chunk, and whether it is the last.  See RFC 3030 section 2."""
    parts = _CHUNK.fullmatch(argument)
    if parts is None:
        raise Refusal(replies.BAD_ARGUMENT)
    return int(parts[1]), parts[2] is not None


def parse_domains(argument: bytes) -> tuple[str, ...]:
    """Return the domains that ATRN names, none for all."""
    if not argument:
        return ()
    names = argument.split(b",")
    if len(names) > MAX_DOMAINS:
        raise Refusal(replies.BAD_ARGUMENT)
    return tuple(_domain(name.strip(b" ")) for name in names)


def parse_pairing(argument: bytes) -> PairingRequest:
    """Parse the argument of XPAIR: three numbers in hex."""
    parts = _PAIRING.fullmatch(argument.decode("ascii", "replace"))
    if parts is None:
        raise Refusal(replies.BAD_ARGUMENT)
    return PairingRequest(*parts.groups())


def parse_etrn(argument: bytes) -> tuple[str, str]:
    """Return the option character and the name (RFC 1985 section 5).

    The character is ``@``, ``#`` or none.
    """
    if argument.startswith(b"#"):
        name = argument[1:].decode("ascii", "replace")
        if not _QUEUE_NAME.fullmatch(name):
            raise Refusal(replies.BAD_ARGUMENT)
        return "#", name
    if argument.startswith(b"@"):
        return "@", _domain(argument[1:])
    return "", _domain(argument)


def parse_list(argument: bytes) -> Mailbox:
    """Return the address that EXPN names (RFC 5321 section 4.1.1.7).

    It may stand in angle brackets.
    """
    text = argument[1:-1] if argument[:1] + argument[-1:] == b"<>" else argument
    try:
        return parse_mailbox(text.decode("ascii"))
    except ValueError:
        raise Refusal(replies.BAD_ARGUMENT) from None


def mail_command(reverse_path: Mailbox, parameters: Sequence[str]) -> bytes:
    """Return MAIL with its CRLF.

    `parameters` are such as ``KEYWORD=VALUE``.  Raises LocalFault.
    """
    return _command(b"MAIL FROM:", reverse_path, parameters)


def rcpt_command(forward_path: Mailbox, parameters: Sequence[str]) -> bytes:
    """Return RCPT with its CRLF.

    `parameters` are such as ``KEYWORD=VALUE``.  Raises LocalFault.
    """
    return _command(b"RCPT TO:", forward_path, parameters)


def _command(verb: bytes, mailbox: Mailbox, parameters: Sequence[str]) -> bytes:
    for parameter in parameters:
        if not PARAMETER.fullmatch(parameter):
            raise LocalFault(f"not a parameter: {parameter!r}")
    words = "".join(f" {parameter}" for parameter in parameters)
    return b"%b%b%b\r\n" % (verb, path(mailbox), words.encode())


def compile_patterns() -> None:
    """Compile the patterns of MAIL and RCPT now.

    The first ones would wait for that.
    """
    for pattern in (MAILBOX, _FROM, _TO):
        compiled(pattern)


def _matched(pattern: str, argument: bytes, otherwise: Reply) -> re.Match[str]:
    try:
        parts = compiled(pattern).fullmatch(argument.decode())
    except UnicodeDecodeError:
        parts = None
    if parts is None:
        raise Refusal(otherwise)
    return parts


def _address(parts: re.Match[str], otherwise: Reply) -> Mailbox:
    try:
        return mailbox_of(parts)
    except ValueError:
        raise Refusal(otherwise) from None


def _domain(octets: bytes) -> str:
    """A domain that a peer names, or one with a full stop."""
    try:
        return parse_domain(octets.removesuffix(b".").decode())
    except ValueError:
        raise Refusal(replies.BAD_ARGUMENT) from None
