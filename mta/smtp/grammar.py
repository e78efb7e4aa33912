"""Octets to commands and back (RFC 5321 sections 4.1.2 and 4.1.3, RFC 6531).

The regular expressions bear the names of the ABNF productions.  Whatever arrives, only
`Refusal` is raised for it; whatever is sent, only `LocalFault`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from unicodedata import normalize

from mta.mail import NULL_PATH, Body, Mailbox, Notify, Recipient, Reply, canonical_domain
from mta.smtp import replies
from mta.smtp.errors import LocalFault, Refusal

MAX_LOCAL_PART = 64  # octets of an address of ours, RFC 5321 section 4.5.3.1.1
MAX_DOMAIN = 255  # octets, section 4.5.3.1.2
MAX_OWN_PATH = 256  # octets with the angle brackets: what any server takes, section 4.5.3.1.3
MAX_PATH = 512  # octets that we take: addresses of others are as long as others make them
MAX_ENVID = 100  # characters, RFC 3461 section 4.4
MAX_ORCPT = 500  # characters, RFC 3461 section 4.2
MAX_DOMAINS = 100  # that one ATRN may name

# Without what RFC 5198 section 2 warns of: C1 controls and the Unicode line ends, which some
# program further on would take for the end of a line.  Nor with what changes the direction of
# text: an address would look like another one.
_UTF8 = r"\u00a0-\u200d\u2010-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\U0010ffff"
# Dots may stand anywhere: some providers hand out addresses such as ``a..b`` and ``a.``, which
# the RFC wants quoted, and which go out quoted.
_DOT_STRING = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~\-.{_UTF8}]+"
_QUOTED_STRING = rf'"(?:[ !#-\[\]-~{_UTF8}]|\\[ -~])*"'
_LOCAL_PART = rf"{_DOT_STRING}|{_QUOTED_STRING}"
# Without the full stops of other scripts too: IDNA reads them as dots between labels.
_U_LABEL = (
    r"\u00a0-\u200d\u2010-\u2027\u202f-\u2065\u206a-\u3001\u3003-\ud7ff"
    r"\ue000-\uff0d\uff0f-\uff60\uff62-\U0010ffff"
)
# The underscore is no letter of the ABNF, and is found in real host names.
_LET_DIG = rf"[A-Za-z0-9_{_U_LABEL}]"
_LDH = rf"[A-Za-z0-9_\-{_U_LABEL}]"
_SUB_DOMAIN = rf"{_LET_DIG}(?:{_LDH}{{0,61}}{_LET_DIG})?"
_DOMAIN = rf"{_SUB_DOMAIN}(?:\.{_SUB_DOMAIN})*"
_ADDRESS_LITERAL = r"\[[!-Z^-~]+\]"
_MAILBOX = rf"(?P<local>{_LOCAL_PART})@(?P<domain>{_DOMAIN}|{_ADDRESS_LITERAL})"
_SOURCE_ROUTE = rf"(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"
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
_DOMAIN_ALONE = re.compile(_DOMAIN)
_FROM = rf"(?ai:FROM): *<(?:{_SOURCE_ROUTE}{_MAILBOX})?>{_PARAMETERS}"
_TO = rf"(?ai:TO): *<(?:{_SOURCE_ROUTE}{_MAILBOX}|(?P<postmaster>(?ai:postmaster)))>{_PARAMETERS}"
_PARAMETER = re.compile(rf"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~{_UTF8}]+))?")
_HELLO = re.compile(rb"[A-Za-z0-9._:-]+|\[[A-Za-z0-9._:-]+\]")
_SIZE = re.compile(r"[0-9]{1,20}")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEXCHAR = re.compile(rb"\+([0-9A-F]{2})")
_UTF8_ADDR = re.compile(rf"(?:[!-*,-<>-\[\]-~{_UTF8}]|\\x\{{[0-9A-F]{{2,6}}\}})*")
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]+)\}")
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
_ADDR_TYPE = re.compile(r"[A-Za-z0-9-]+")
_PRINTABLE = re.compile(rf"[ -~{_UTF8}]+")
_CHUNK = re.compile(rb"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)
_ROUTE = frozenset("%!@")
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Command:
    """A command line: the verb in upper case, and what follows it."""

    verb: str
    argument: bytes


@dataclass(frozen=True, slots=True)
class MailArgument:
    """What MAIL said; `size` in octets, None where it was not told.

    `auth` is the decoded AUTH parameter: who submitted the message, ``<>`` for unknown, None
    where it was not told (RFC 4954 section 5).
    """

    reverse_path: Mailbox
    size: int | None = None
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    require_tls: bool = False
    auth: str | None = None


@dataclass(frozen=True, slots=True)
class ProxiedClient:
    """The client that a proxy speaks for, as far as XCLIENT told; empty: unknown.

    `user` is who logged in at the proxy.
    """

    address: str = ""
    user: str = ""
    hello: str = ""
    extended: bool = False


# The field that a parameter is for, and what makes its value out of the text after "=",
# which is empty where there is none.
_Parameter = tuple[str, Callable[[str], object]]


# --- what arrives ------------------------------------------------------------------


def is_foreign(line: bytes) -> bool:
    """Whether a line, or the beginning of one, belongs to another protocol.

    A browser or a web server that was led to our port says HTTP, a telephone SIP; TLS, SOCKS and
    others begin with a control character.
    """
    return bool(_FOREIGN.match(line))


def parse_command(line: bytes) -> Command:
    """A command line without its CRLF; white space at its end means nothing."""
    parts = _COMMAND.fullmatch(line.rstrip(b" \t"))
    if parts is None:
        raise Refusal(replies.MALFORMED)
    return Command(parts[1].decode("ascii").upper(), parts[2] or b"")


def parse_mail(argument: bytes, offered: frozenset[str]) -> MailArgument:
    """The argument of MAIL; `offered`: the parameters that this session may use."""
    parts = _matched(_FROM, argument, replies.BAD_REVERSE_PATH)
    reverse_path = NULL_PATH
    if parts["local"] is not None:
        reverse_path = _address(parts, replies.BAD_REVERSE_PATH)
    mail = MailArgument(reverse_path, **_parameters(parts["parameters"], _MAIL_PARAMETERS, offered))
    if not (mail.smtputf8 or argument.isascii()):
        raise Refusal(replies.NO_SMTPUTF8)
    return mail


def parse_rcpt(argument: bytes, offered: frozenset[str], *, smtputf8: bool) -> Recipient:
    """The argument of RCPT in a transaction with or without SMTPUTF8."""
    parts = _matched(_TO, argument, replies.BAD_FORWARD_PATH)
    if parts["postmaster"] is not None:
        forward_path = Mailbox(parts["postmaster"])
    else:
        forward_path = _address(parts, replies.BAD_FORWARD_PATH)
    recipient = Recipient(
        forward_path, **_parameters(parts["parameters"], _RCPT_PARAMETERS, offered)
    )
    if not (smtputf8 or argument.isascii()):
        raise Refusal(replies.NO_SMTPUTF8)
    return recipient


def parse_hello(argument: bytes) -> str:
    """The name that a client gives itself: what real clients send, and nothing harmful."""
    if len(argument) > MAX_DOMAIN or not _HELLO.fullmatch(argument):
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
    names = argument.split(b",")
    if len(names) > MAX_DOMAINS:
        raise Refusal(replies.BAD_ARGUMENT)
    return tuple(_domain(name.strip(b" ")) for name in names)


def parse_etrn(argument: bytes) -> tuple[str, str]:
    """The option character (``@``, ``#`` or none) and the name (RFC 1985 section 5)."""
    if argument.startswith(b"#"):
        name = argument[1:].decode("ascii", "replace")
        if not _QUEUE_NAME.fullmatch(name):
            raise Refusal(replies.BAD_ARGUMENT)
        return "#", name
    if argument.startswith(b"@"):
        return "@", _domain(argument[1:])
    return "", _domain(argument)


def parse_list(argument: bytes) -> Mailbox:
    """The address that EXPN names, with or without angle brackets (RFC 5321 section 4.1.1.7)."""
    text = argument[1:-1] if argument[:1] + argument[-1:] == b"<>" else argument
    try:
        return parse_mailbox(text.decode("ascii"))
    except ValueError:
        raise Refusal(replies.BAD_ARGUMENT) from None


def parse_xclient(argument: bytes, known: ProxiedClient) -> ProxiedClient:
    """What is known of a proxy's client after XCLIENT (Postfix's XCLIENT_README).

    What a command does not name stays as it was.
    """
    if not argument:
        raise Refusal(replies.BAD_ARGUMENT)
    said: dict[str, object] = {}
    for attribute in argument.split():
        name, equals, value = attribute.decode("ascii", "replace").partition("=")
        if not equals or name.upper() not in XCLIENT_ATTRIBUTES:
            raise Refusal(replies.BAD_ARGUMENT)
        field, parse = XCLIENT_ATTRIBUTES[name.upper()]
        try:
            text = decode_xtext(value)
            said[field] = parse("" if text.upper() in _NOT_TOLD else text)
        except ValueError:
            raise Refusal(replies.BAD_ARGUMENT) from None
    said.pop("", None)
    return replace(known, **said)  # type: ignore[arg-type]


def _client_address(value: str) -> str:
    return str(ip_address(re.sub("(?ai:^ipv6:)", "", value))) if value else ""


def _client_hello(value: str) -> str:
    """The name, or none where we would not have taken it from the client."""
    return value if _HELLO.fullmatch(value.encode()) and len(value) <= MAX_DOMAIN else ""


def _client_is_extended(value: str) -> bool:
    if value.upper() not in ("", "SMTP", "ESMTP"):
        raise ValueError("no protocol of ours")
    return value.upper() == "ESMTP"


def _client_user(value: str) -> str:
    if value and not (_PRINTABLE.fullmatch(value) and len(value) <= MAX_DOMAIN):
        raise ValueError("not the name of a user")
    return value


# The field that an attribute is for, none where we have no use for it, and what reads its value.
XCLIENT_ATTRIBUTES: Mapping[str, _Parameter] = {
    "NAME": ("", str),
    "ADDR": ("address", _client_address),
    "PORT": ("", str),
    "PROTO": ("extended", _client_is_extended),
    "HELO": ("hello", _client_hello),
    "LOGIN": ("user", _client_user),
    "DESTADDR": ("", str),
    "DESTPORT": ("", str),
}
_NOT_TOLD = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")


def parse_mailbox(text: str) -> Mailbox:
    """An address as people write it in files and on command lines.  Raises ValueError."""
    parts = _compiled(_MAILBOX).fullmatch(text)
    if parts is None:
        raise ValueError(f"not an address: {text!r}")
    return _mailbox(parts)


def parse_domain(text: str) -> str:
    """A domain in its canonical form, see `mta.mail.canonical_domain`.  Raises ValueError."""
    is_domain = len(text.encode()) <= MAX_DOMAIN and _DOMAIN_ALONE.fullmatch(text)
    domain = canonical_domain(text) if is_domain else ""
    if not domain or len(domain.encode()) > MAX_DOMAIN:  # A-labels can be longer
        raise ValueError(f"not a domain: {text!r}")
    return domain


def has_route(local_part: str) -> bool:
    """Whether a local part might be a route to some other server (RFC 5321 appendix F.2).

    In whatever width its signs are written: who normalises Unicode would see them.
    """
    return not _ROUTE.isdisjoint(normalize("NFKC", local_part))


def decode_xtext(text: str) -> str:
    """What xtext stands for (RFC 3461 section 4), as UTF-8.  Raises ValueError."""
    if not _XTEXT.fullmatch(text):
        raise ValueError(f"not xtext: {text!r}")
    return _HEXCHAR.sub(lambda code: bytes([int(code[1], 16)]), text.encode("ascii")).decode()


def compile_patterns() -> None:
    """Compile now what the first MAIL and RCPT would wait for, a tenth of a second."""
    for pattern in (_MAILBOX, _FROM, _TO):
        _compiled(pattern)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern that takes long to compile, and that a command line may never need."""
    return re.compile(pattern, re.DOTALL)


def _matched(pattern: str, argument: bytes, otherwise: Reply) -> re.Match[str]:
    try:
        parts = _compiled(pattern).fullmatch(argument.decode())
    except UnicodeDecodeError:
        parts = None
    if parts is None:
        raise Refusal(otherwise)
    return parts


def _address(parts: re.Match[str], otherwise: Reply) -> Mailbox:
    try:
        return _mailbox(parts)
    except ValueError:
        raise Refusal(otherwise) from None


def _mailbox(parts: re.Match[str]) -> Mailbox:
    local_part, domain = parts["local"], parts["domain"]
    if local_part.startswith('"'):
        local_part = re.sub(r"\\(.)", r"\1", local_part[1:-1])
    domain = _literal(domain[1:-1]) if domain.startswith("[") else parse_domain(domain)
    if len(f"<{parts['local']}@{domain}>".encode()) > MAX_PATH:
        raise ValueError(f"a path of more than {MAX_PATH} octets: {parts[0]!r}")
    return Mailbox(local_part, domain)


def _literal(text: str) -> str:
    """An address literal in one form, whatever form it came in (RFC 5321 section 4.1.3).

    No tag but IPv6 is registered.  A zone (``%eth0``) means nothing on another host.
    """
    if text[:5].lower() == "ipv6:" and "%" not in text:
        return f"[IPv6:{IPv6Address(text[5:])}]"
    return f"[{IPv4Address(text)}]"


def _domain(octets: bytes) -> str:
    try:
        return parse_domain(octets.decode())
    except ValueError:
        raise Refusal(replies.BAD_ARGUMENT) from None


# --- the parameters of MAIL and RCPT -------------------------------------------------


def _parameters(
    text: str | None, known: Mapping[str, _Parameter], offered: frozenset[str]
) -> dict[str, Any]:
    """The values that were given, by the name of the field that they are for."""
    given: dict[str, Any] = {}
    for word in text.split(" ") if text else ():
        if not word:
            continue
        parts = _PARAMETER.fullmatch(word)
        if parts is None:
            raise Refusal(replies.BAD_ARGUMENT)
        keyword = parts[1].upper()
        if keyword not in offered or keyword not in known:
            raise Refusal(replies.PARAMETER_UNKNOWN)
        name, parse = known[keyword]
        if name in given:
            raise Refusal(Reply(501, "5.5.4", (f"{keyword} given twice",)))
        try:
            given[name] = parse(parts[2] or "")
        except ValueError:
            raise Refusal(Reply(501, "5.5.4", (f"Bad value for {keyword}",))) from None
    return given


def _flag(value: str) -> bool:
    if value:
        raise ValueError("takes no value")
    return True


def _size(value: str) -> int:
    """SIZE (RFC 1870 section 4)."""
    if not _SIZE.fullmatch(value):
        raise ValueError("not a number of octets")
    return int(value)


def _body(value: str) -> Body:
    return Body(value.upper())


def _ret(value: str) -> str:
    """RET (RFC 3461 section 4.3)."""
    if value.upper() not in ("FULL", "HDRS"):
        raise ValueError("neither FULL nor HDRS")
    return value.upper()


def _envid(value: str) -> str:
    """ENVID (RFC 3461 section 4.4): it ends in the header section of a notice."""
    envid = decode_xtext(value)
    if len(value) > MAX_ENVID or not (envid.isascii() and _PRINTABLE.fullmatch(envid)):
        raise ValueError("not an envelope identifier")
    return envid


def _auth(value: str) -> str:
    """AUTH (RFC 4954 section 5): what is no address of anybody is as good as ``<>``."""
    if not value:
        raise ValueError("no value")
    decoded = decode_xtext(value)
    try:
        return str(parse_mailbox(decoded))
    except ValueError:
        return "<>"


def _notify(value: str) -> frozenset[Notify]:
    """NOTIFY (RFC 3461 section 4.1)."""
    conditions = frozenset(Notify(word) for word in value.upper().split(","))
    if Notify.NEVER in conditions and len(conditions) > 1:
        raise ValueError("NEVER stands alone")
    return conditions


def _original(value: str) -> str:
    """ORCPT (RFC 3461 section 4.2, RFC 6533 section 3): it ends in a notice, as ENVID does."""
    kind, _, encoded = value.partition(";")
    address = _decode_utf8_addr(encoded) if kind.lower() == "utf-8" else decode_xtext(encoded)
    fits = len(value) <= MAX_ORCPT and _ADDR_TYPE.fullmatch(kind)
    if not (fits and _PRINTABLE.fullmatch(address)):
        raise ValueError("not an original recipient")
    return f"{kind};{address}"


def _decode_utf8_addr(text: str) -> str:
    if not _UTF8_ADDR.fullmatch(text):
        raise ValueError("neither utf-8-addr-xtext nor utf-8-addr-unitext")
    return _EMBEDDED.sub(lambda code: chr(int(code[1], 16)), text)


_MAIL_PARAMETERS: Mapping[str, _Parameter] = {
    "SIZE": ("size", _size),
    "BODY": ("body", _body),
    "SMTPUTF8": ("smtputf8", _flag),
    "RET": ("ret", _ret),
    "ENVID": ("envid", _envid),
    "REQUIRETLS": ("require_tls", _flag),
    "AUTH": ("auth", _auth),
}
_RCPT_PARAMETERS: Mapping[str, _Parameter] = {
    "NOTIFY": ("notify", _notify),
    "ORCPT": ("original", _original),
}


# --- what is sent ------------------------------------------------------------------


def path(mailbox: Mailbox) -> bytes:
    """The path with its angle brackets.  Raises LocalFault for what no path can hold."""
    text = str(mailbox)
    # Only the postmaster has an address without a domain.
    whole = text if mailbox.domain else f"{text}@localhost"
    if not (mailbox.is_null or _compiled(_MAILBOX).fullmatch(whole)):
        raise LocalFault(f"no path can hold this address: {text!r}")
    return f"<{text}>".encode()


def mail_command(reverse_path: Mailbox, parameters: Sequence[str]) -> bytes:
    """MAIL with its CRLF; `parameters` as ``KEYWORD=VALUE``.  Raises LocalFault."""
    return _command(b"MAIL FROM:", reverse_path, parameters)


def rcpt_command(forward_path: Mailbox, parameters: Sequence[str]) -> bytes:
    """RCPT with its CRLF; `parameters` as ``KEYWORD=VALUE``.  Raises LocalFault."""
    return _command(b"RCPT TO:", forward_path, parameters)


def _command(verb: bytes, mailbox: Mailbox, parameters: Sequence[str]) -> bytes:
    for parameter in parameters:
        if not _PARAMETER.fullmatch(parameter):
            raise LocalFault(f"not a parameter: {parameter!r}")
    words = "".join(f" {parameter}" for parameter in parameters)
    return b"%b%b%b\r\n" % (verb, path(mailbox), words.encode())


def encode_xtext(text: str) -> str:
    """Text as xtext (RFC 3461 section 4), by way of UTF-8.  Raises LocalFault."""
    try:
        octets = text.encode()
    except UnicodeEncodeError:
        raise LocalFault(f"not Unicode text: {text!r}") from None
    return "".join(
        chr(octet) if 0x21 <= octet <= 0x7E and octet not in b"+=" else f"+{octet:02X}"
        for octet in octets
    )


def encode_original(original: str) -> str:
    """An ORCPT value, ``addr-type;address`` (RFC 3461 section 4.2, RFC 6533 section 3).

    Raises LocalFault.
    """
    kind, _, address = original.partition(";")
    if kind.lower() != "utf-8":
        return f"{kind};{encode_xtext(address)}"
    encoded = _NOT_QCHAR.sub(lambda character: f"\\x{{{ord(character[0]):02X}}}", address)
    return f"{kind};{encoded}"
