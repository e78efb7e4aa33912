"""Octets to commands and back (RFC 5321 sections 4.1.2 and 4.1.3, RFC 6531).

The regular expressions bear the names of the ABNF productions.  Whatever arrives, only
`Refusal` is raised for it; whatever is sent, only `LocalFault`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from mta.mail import NULL_PATH, Body, Mailbox, Notify, Recipient, Reply
from mta.smtp import replies
from mta.smtp.errors import LocalFault, Refusal

MOST_LOCAL_PART = 64  # octets, RFC 5321 section 4.5.3.1.1
MOST_DOMAIN = 255  # octets, section 4.5.3.1.2
MOST_PATH = 256  # octets with the angle brackets, section 4.5.3.1.3
MOST_ENVID = 100  # characters, RFC 3461 section 4.4
MOST_ORCPT = 500  # characters, RFC 3461 section 4.2
MOST_DOMAINS = 100  # that one ATRN may name

_UTF8 = "\u0080-\U0010ffff"
_ATEXT = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~\-{_UTF8}]"
_DOT_STRING = rf"{_ATEXT}+(?:\.{_ATEXT}+)*"
_QUOTED_STRING = rf'"(?:[ !#-\[\]-~{_UTF8}]|\\[ -~])*"'
_LOCAL_PART = rf"{_DOT_STRING}|{_QUOTED_STRING}"
# The underscore is no letter of the ABNF, and is found in real host names.
_LET_DIG = rf"[A-Za-z0-9_{_UTF8}]"
_SUB_DOMAIN = rf"{_LET_DIG}(?:[A-Za-z0-9_\-{_UTF8}]*{_LET_DIG})?"
_DOMAIN = rf"{_SUB_DOMAIN}(?:\.{_SUB_DOMAIN})*"
_ADDRESS_LITERAL = r"\[[!-Z^-~]+\]"
_MAILBOX = rf"(?P<local>{_LOCAL_PART})@(?P<domain>{_DOMAIN}|{_ADDRESS_LITERAL})"
_SOURCE_ROUTE = rf"(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"
_PARAMETERS = r"(?: +(?P<parameters>.*))?"

_COMMAND = re.compile(rb"([A-Za-z0-9]+)(?: (.*))?")
_MAILBOX_ALONE = re.compile(_MAILBOX)
_DOMAIN_ALONE = re.compile(_DOMAIN)
_FROM = re.compile(
    rf"FROM: ?<(?:{_SOURCE_ROUTE}{_MAILBOX})?>{_PARAMETERS}", re.IGNORECASE | re.DOTALL
)
_TO = re.compile(
    rf"TO: ?<(?:{_SOURCE_ROUTE}{_MAILBOX}|(?P<postmaster>POSTMASTER))>{_PARAMETERS}",
    re.IGNORECASE | re.DOTALL,
)
_PARAMETER = re.compile(rf"([A-Za-z0-9][A-Za-z0-9\-]*)(?:=([!-<>-~{_UTF8}]+))?")
_HELLO = re.compile(rb"[A-Za-z0-9._:\[\]\-]{1,255}")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_XTEXT_CODE = re.compile(r"\+([0-9A-F]{2})")
_UTF8_TEXT = re.compile(rf"(?:[!-*,-<>-\[\]-~{_UTF8}]|\\x\{{[0-9A-F]{{2,6}}\}})*")
_UTF8_CODE = re.compile(r"\\x\{([0-9A-F]+)\}")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9\-]+")
_CHUNK = re.compile(rb"([0-9]{1,20})(?: +(LAST))? *", re.IGNORECASE)
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


@dataclass(frozen=True, slots=True)
class Command:
    """A command line: the verb in upper case, and what follows it."""

    verb: str
    argument: bytes


@dataclass(frozen=True, slots=True)
class MailArgument:
    """What MAIL said; `size` in octets, None where it was not told."""

    reverse_path: Mailbox
    size: int | None = None
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    require_tls: bool = False


# --- what arrives ------------------------------------------------------------------


def parse_command(line: bytes) -> Command:
    """A command line without its CRLF; white space at its end means nothing."""
    parts = _COMMAND.fullmatch(line.rstrip(b" \t"))
    if parts is None or b"\n" in line or b"\r" in line or b"\0" in line:
        raise Refusal(replies.MALFORMED)
    return Command(parts[1].decode("ascii").upper(), (parts[2] or b"").lstrip(b" "))


def parse_mail(argument: bytes, offered: frozenset[str]) -> MailArgument:
    """The argument of MAIL; `offered`: the parameters that this session may use."""
    parts = _matched(_FROM, argument, replies.BAD_REVERSE_PATH)
    reverse_path = NULL_PATH
    if parts["local"] is not None:
        reverse_path = _mailbox(parts, replies.BAD_REVERSE_PATH)
    given = _parameters(parts["parameters"], offered)
    smtputf8 = _flag(given, "SMTPUTF8")
    if reverse_path.is_internationalised and not smtputf8:
        raise Refusal(replies.NO_SMTPUTF8)
    if "AUTH" in given and not _XTEXT.fullmatch(given["AUTH"] or "+"):
        raise _bad_parameter("AUTH")
    return MailArgument(
        reverse_path,
        _size(given),
        _choice(given, "BODY", Body, Body.SEVEN_BIT),
        smtputf8,
        _one_of(given, "RET", ("FULL", "HDRS")),
        _envid(given),
        _flag(given, "REQUIRETLS"),
    )


def parse_rcpt(argument: bytes, offered: frozenset[str], *, smtputf8: bool) -> Recipient:
    """The argument of RCPT in a transaction with or without SMTPUTF8."""
    parts = _matched(_TO, argument, replies.BAD_FORWARD_PATH)
    if parts["postmaster"] is not None:
        forward_path = Mailbox(parts["postmaster"])
    else:
        forward_path = _mailbox(parts, replies.BAD_FORWARD_PATH)
    if forward_path.is_internationalised and not smtputf8:
        raise Refusal(replies.NO_SMTPUTF8)
    given = _parameters(parts["parameters"], offered)
    return Recipient(forward_path, _notify(given), _original(given))


def parse_hello(argument: bytes) -> str:
    """The name that a client gives itself: what real clients send, and nothing harmful."""
    if not _HELLO.fullmatch(argument):
        raise Refusal(replies.BAD_ARGUMENT)
    return argument.decode("ascii")


def parse_bdat(argument: bytes) -> tuple[int, bool]:
    """The size of a chunk in octets, and whether it is the last (RFC 3030 section 2)."""
    parts = _CHUNK.fullmatch(argument)
    if parts is None:
        raise Refusal(replies.BAD_ARGUMENT)
    return int(parts[1]), parts[2] is not None


def parse_domains(argument: bytes) -> tuple[str, ...]:
    """The domains that ATRN names, none for all (RFC 2645 section 5.2.1)."""
    if not argument:
        return ()
    names = argument.decode("utf-8", "replace").split(",")
    if len(names) > MOST_DOMAINS:
        raise Refusal(replies.BAD_ARGUMENT)
    try:
        return tuple(parse_domain(name.strip(" ")) for name in names)
    except ValueError:
        raise Refusal(replies.BAD_ARGUMENT) from None


def parse_etrn(argument: bytes) -> tuple[str, str]:
    """The option character (``@``, ``#`` or none) and the name (RFC 1985 section 5)."""
    text = argument.decode("utf-8", "replace")
    option = text[:1] if text[:1] in ("@", "#") else ""
    name = text.removeprefix(option)
    if option == "#":
        if not _QUEUE_NAME.fullmatch(name):
            raise Refusal(replies.BAD_ARGUMENT)
        return option, name
    try:
        return option, parse_domain(name)
    except ValueError:
        raise Refusal(replies.BAD_ARGUMENT) from None


def parse_mailbox(text: str) -> Mailbox:
    """An address as people write it in files and on command lines.  Raises ValueError."""
    parts = _MAILBOX_ALONE.fullmatch(text)
    if parts is None:
        raise ValueError(f"not an address: {text!r}")
    try:
        return _mailbox(parts, replies.BAD_FORWARD_PATH)
    except Refusal:
        raise ValueError(f"not an address: {text!r}") from None


def parse_domain(text: str) -> str:
    """A domain in lower case.  Raises ValueError."""
    if not _DOMAIN_ALONE.fullmatch(text) or len(text.encode()) > MOST_DOMAIN:
        raise ValueError(f"not a domain: {text!r}")
    return text.lower()


def _matched(pattern: re.Pattern[str], argument: bytes, otherwise: Reply) -> re.Match[str]:
    try:
        parts = pattern.fullmatch(argument.decode("utf-8"))
    except UnicodeDecodeError:
        parts = None
    if parts is None:
        raise Refusal(otherwise)
    return parts


def _mailbox(parts: re.Match[str], otherwise: Reply) -> Mailbox:
    local_part, domain = parts["local"], parts["domain"]
    if local_part.startswith('"'):
        local_part = re.sub(r"\\(.)", r"\1", local_part[1:-1])
    if domain.startswith("["):
        domain = _literal(domain[1:-1], otherwise)
    too_long = (
        len(local_part.encode()) > MOST_LOCAL_PART
        or len(domain.encode()) > MOST_DOMAIN
        or len(f"<{parts['local']}@{domain}>".encode()) > MOST_PATH
    )
    if too_long:
        raise Refusal(otherwise)
    return Mailbox(local_part, domain.lower())


def _literal(text: str, otherwise: Reply) -> str:
    """An address literal in one form, whatever form it came in (RFC 5321 section 4.1.3)."""
    try:
        if text[:5].lower() == "ipv6:":
            return f"[IPv6:{IPv6Address(text[5:])}]"
        return f"[{IPv4Address(text)}]"
    except ValueError:
        raise Refusal(otherwise) from None


def _parameters(text: str | None, offered: frozenset[str]) -> dict[str, str | None]:
    given: dict[str, str | None] = {}
    for word in (text or "").split():
        parts = _PARAMETER.fullmatch(word)
        if parts is None:
            raise Refusal(replies.BAD_ARGUMENT)
        keyword = parts[1].upper()
        if keyword not in offered:
            raise Refusal(replies.PARAMETER_UNKNOWN)
        if keyword in given:
            raise _bad_parameter(keyword)
        given[keyword] = parts[2]
    return given


def _bad_parameter(keyword: str) -> Refusal:
    return Refusal(Reply(501, "5.5.4", (f"Bad value for {keyword}",)))


def _flag(given: dict[str, str | None], keyword: str) -> bool:
    if given.get(keyword) is not None:
        raise _bad_parameter(keyword)
    return keyword in given


def _one_of(given: dict[str, str | None], keyword: str, values: Sequence[str]) -> str:
    if keyword not in given:
        return ""
    value = (given[keyword] or "").upper()
    if value not in values:
        raise _bad_parameter(keyword)
    return value


def _choice(given: dict[str, str | None], keyword: str, kind: type[Body], default: Body) -> Body:
    value = _one_of(given, keyword, [member.value for member in kind])
    return kind(value) if value else default


def _size(given: dict[str, str | None]) -> int | None:
    """SIZE (RFC 1870 section 4)."""
    if "SIZE" not in given:
        return None
    value = given["SIZE"] or ""
    if not (value.isascii() and value.isdecimal() and len(value) <= 20):
        raise _bad_parameter("SIZE")
    return int(value)


def _envid(given: dict[str, str | None]) -> str:
    """ENVID (RFC 3461 section 4.4)."""
    if "ENVID" not in given:
        return ""
    value = given["ENVID"] or ""
    if not value or len(value) > MOST_ENVID or not _XTEXT.fullmatch(value):
        raise _bad_parameter("ENVID")
    return decode_xtext(value)


def _notify(given: dict[str, str | None]) -> frozenset[Notify]:
    """NOTIFY (RFC 3461 section 4.1)."""
    if "NOTIFY" not in given:
        return frozenset()
    try:
        conditions = [Notify(word) for word in (given["NOTIFY"] or "").upper().split(",")]
    except ValueError:
        raise _bad_parameter("NOTIFY") from None
    if Notify.NEVER in conditions and len(conditions) > 1:
        raise _bad_parameter("NOTIFY")
    return frozenset(conditions)


def _original(given: dict[str, str | None]) -> str:
    """ORCPT (RFC 3461 section 4.2, RFC 6533 section 3)."""
    if "ORCPT" not in given:
        return ""
    kind, _, address = (given["ORCPT"] or "").partition(";")
    if kind.lower() == "utf-8":
        form, decode = _UTF8_TEXT, _decode_utf8_address
    else:
        form, decode = _XTEXT, decode_xtext
    fits = len(kind) + len(address) < MOST_ORCPT and form.fullmatch(address)
    if not (_ADDRESS_TYPE.fullmatch(kind) and address and fits):
        raise _bad_parameter("ORCPT")
    try:
        return f"{kind};{decode(address)}"
    except ValueError:
        raise _bad_parameter("ORCPT") from None


def decode_xtext(text: str) -> str:
    """xtext to what it stands for (RFC 3461 section 4)."""
    return _XTEXT_CODE.sub(lambda code: chr(int(code[1], 16)), text)


def _decode_utf8_address(text: str) -> str:
    return _UTF8_CODE.sub(lambda code: chr(int(code[1], 16)), text)


# --- what is sent ------------------------------------------------------------------


def path(mailbox: Mailbox) -> bytes:
    """The path with its angle brackets.  Raises LocalFault for what no path can hold."""
    return f"<{_safe(str(mailbox))}>".encode()


def mail_command(reverse_path: Mailbox, parameters: Sequence[str]) -> bytes:
    """MAIL with its CRLF.  Raises LocalFault."""
    return _command(b"MAIL FROM:", reverse_path, parameters)


def rcpt_command(forward_path: Mailbox, parameters: Sequence[str]) -> bytes:
    """RCPT with its CRLF.  Raises LocalFault."""
    return _command(b"RCPT TO:", forward_path, parameters)


def _command(verb: bytes, mailbox: Mailbox, parameters: Sequence[str]) -> bytes:
    words = "".join(f" {_safe(parameter)}" for parameter in parameters)
    return b"%b%b%b\r\n" % (verb, path(mailbox), words.encode())


def _safe(text: str) -> str:
    if any(character in text for character in "\r\n\0"):
        raise LocalFault(f"would break the line: {text!r}")
    return text


def encode_xtext(text: str) -> str:
    """Text of code points below 256 as xtext (RFC 3461 section 4)."""
    return "".join(
        character if "!" <= character <= "~" and character not in "+=" else f"+{ord(character):02X}"
        for character in text
    )


def encode_original(original: str) -> str:
    """An ORCPT value, ``addr-type;address`` (RFC 3461 section 4.2, RFC 6533 section 3)."""
    kind, _, address = original.partition(";")
    if kind.lower() != "utf-8":
        return f"{kind};{encode_xtext(address)}"
    encoded = "".join(
        character
        if "!" <= character <= "~" and character not in "+=\\"
        else f"\\x{{{ord(character):02X}}}"
        for character in address
    )
    return f"{kind};{encoded}"
