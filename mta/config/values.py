"""Single values of the configuration: durations, sizes, names, files, secrets.

Every function here is a reader: it takes a `Value` and raises ConfigurationError.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from fractions import Fraction
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TypeVar

from mta.config.document import (
    ConfigurationError,
    Fields,
    Reader,
    Value,
    list_of,
    listed,
    read_record,
    suggest,
)
from mta.files import open_regular
from mta.mail import Mailbox, canonical_domain
from mta.settings import DAY, GIB, HOUR, KIB, MIB, MINUTE, CertificatePair, Network
from mta.smtp import grammar

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

DNS_PORT = 53
MAX_PORT = 65535
MAX_DURATION = 3650 * DAY
MAX_SIZE = 1024 * GIB
MAX_LABEL = 63  # octets, RFC 1035 section 2.3.4
SIGNS = "!#$%&'*+-/=?^_`{|}~"  # what a local part may have besides letters and digits
MAX_SECRET = 4096  # octets of a file that are looked at for its first line

_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)")
_HOST = re.compile(r"\w+(?:-+\w+)*(?:\.\w+(?:-+\w+)*)*")
_PEER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SELECTOR = re.compile(r"(?!.{64})[a-z0-9]+(?:-+[a-z0-9]+)*(?:\.[a-z0-9]+(?:-+[a-z0-9]+)*)*")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def one_of(choices: Mapping[str, T], unlisted: Mapping[str, T] | None = None) -> Reader[T]:
    """The reader of a word that stands for something.

    Words that are `unlisted` are not offered to people.
    """
    known = {**choices, **(unlisted or {})}

    def reader(value: Value) -> T:
        text = value.text(listed(choices))
        if text not in known:
            raise value.wrong(f"{text!r} is none of the choices, {suggest(text, choices)}")
        return known[text]

    return reader


def member_of(kind: type[E]) -> Reader[E]:
    """The reader of an enumeration, by the values of its members."""
    return one_of({str(member.value): member for member in kind})


def word(*words: str) -> Reader[str]:
    """The reader of a word among some."""
    return one_of({each: each for each in words})


boolean = one_of({"true": True, "false": False})
# Programs that write YAML make truth values of these words.
on_off = one_of({"on": True, "off": False}, {"true": True, "false": False})


def integer(minimum: int, maximum: int) -> Reader[int]:
    """The reader of a whole number in a range."""
    expected = f"a whole number from {minimum} to {maximum}"

    def reader(value: Value) -> int:
        text = value.text(expected)
        if not re.fullmatch("[0-9]{1,18}", text) or not minimum <= int(text) <= maximum:
            raise value.wrong(f"found {text!r}, expected {expected}")
        return int(text)

    return reader


_DURATIONS = {"": 1, "s": 1, "m": MINUTE, "h": HOUR, "d": DAY}
_SIZES = {"": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}


def duration(value: Value) -> float:
    """A length of time, in seconds."""
    expected = "a duration such as 90s, 5m, 4h or 5d"
    return float(_quantity(value, _DURATIONS, MAX_DURATION, expected))


def positive_duration(value: Value) -> float:
    """A length of time that isn't zero, in seconds."""
    seconds = duration(value)
    if not seconds:
        raise value.wrong("found a duration of zero, expected a longer one")
    return seconds


def size(value: Value) -> int:
    """A size, in octets: one at least."""
    expected = "a size such as 512KiB, 50MiB or 1GiB"
    octets = int(_quantity(value, _SIZES, MAX_SIZE, expected))
    if not octets:
        raise value.wrong("found a size of zero, expected a larger one")
    return octets


def _quantity(value: Value, units: Mapping[str, float], maximum: float, expected: str) -> Fraction:
    text = value.text(expected)
    match = _QUANTITY.fullmatch(text)
    if not match or match[2] not in units:
        raise value.wrong(f"found {text!r}, expected {expected}")
    quantity = Fraction(match[1]) * Fraction(units[match[2]])
    if quantity > maximum:
        raise value.wrong(f"{text!r} is out of range, expected {expected}")
    return quantity


def domain(value: Value) -> str:
    """A domain name in its canonical form (RFC 5321 section 2.3.5)."""
    return _domain(value, value.text("a domain"), "example.com")


def domain_or_subdomains(value: Value) -> str:
    """A domain, or ``.domain`` for all below it, in its canonical form."""
    text = value.text("a domain or .domain")
    name = _domain(value, text.removeprefix("."), "example.com or .example.com")
    return f".{name}" if text.startswith(".") else name


def _domain(value: Value, text: str, example: str) -> str:
    try:
        name = grammar.parse_domain(text)
    except ValueError:
        name = ""
    *_, top = labels = name.split(".")
    # A number at the end is an IP address, or nothing at all (RFC 3696 section 2).
    if not name or top.isdecimal() or any(len(label.encode()) > MAX_LABEL for label in labels):
        raise value.wrong(f"{text!r} is not a domain, expected one such as {example}")
    return name


def selector(value: Value) -> str:
    """The selector of a DKIM key (RFC 6376 section 3.1).

    It consists of labels of a domain name.
    """
    text = value.text("a selector").lower()
    if not _SELECTOR.fullmatch(text):
        raise value.wrong(f"{text!r} is not a selector, expected one such as 2026a")
    return text


def is_host(text: str) -> bool:
    """Return whether this is a host name or an IP address."""
    try:
        ip_address(text)
    except ValueError:
        top = text.rpartition(".")[2]
        return (
            len(text) <= grammar.MAX_DOMAIN and bool(_HOST.fullmatch(text)) and not top.isdecimal()
        )
    return True


def local_part(value: Value) -> str:
    """The local part of one of our mailboxes, in lower case."""
    text = value.text("a mailbox name")
    try:
        found = str(grammar.parse_mailbox(f"{text}@localhost"))
    except ValueError:
        found = ""
    # What is printed in quotes is none: our own addresses keep to the grammar and its limits.
    if found != f"{text}@localhost" or len(text.encode()) > grammar.MAX_LOCAL_PART:
        raise value.wrong(f"{text!r} is not a mailbox name, expected one such as alice (without @)")
    return text.lower()


def mailbox(value: Value) -> Mailbox:
    """An address.  One without a domain is left without one, in lower case."""
    text = value.text("an address")
    if "@" not in text:
        return Mailbox(local_part(value))
    try:
        return grammar.parse_mailbox(text)
    except ValueError:
        raise value.wrong(
            f"{text!r} is not an address, expected one such as alice@example.com"
        ) from None


def mailboxes(value: Value) -> tuple[Mailbox, ...]:
    """One address or a list of them, none twice."""
    if not value.is_list:
        return (mailbox(value),)
    found = tuple(dict.fromkeys(list_of(mailbox)(value)))
    if not found:
        raise value.wrong("found an empty list, expected an address or several")
    return found


def sender(value: Value) -> str:
    """An address, a domain, or ``.domain``, in the form of `Settings.senders`."""
    if "@" not in value.text("an address, a domain or .domain"):
        return domain_or_subdomains(value)
    return str(mailbox(value)).lower()


def user(value: Value) -> str:
    """The name of a user."""
    text = value.text("a user")
    if not text:
        raise value.wrong("found nothing, expected a user")
    return text


def peer_name(value: Value) -> str:
    """The name that we give a peer."""
    text = value.text("a name")
    if not _PEER.fullmatch(text):
        raise value.wrong(
            f"{text!r} is not a peer's name, expected letters, digits, '-', '_' and '.'"
        )
    return text


def filter_name(value: Value) -> str:
    """The name that we give a filter."""
    text = value.text("a name")
    if not _PEER.fullmatch(text):
        raise value.wrong(
            f"{text!r} is not the name of a filter, expected letters, digits, '-', '_' and '.'"
        )
    return text


def subaddress(value: Value) -> str:
    """The separator of mailbox and detail (RFC 5233): a character, or none."""
    expected = "one sign such as '+', or '' for none"
    text = value.text(expected)
    if text and text not in tuple(SIGNS):
        raise value.wrong(f"found {text!r}, expected {expected}")
    return text


def absolute(value: Value, path: str) -> str:
    """A path as seen from the folder of the file."""
    return os.path.normpath(value.source.folder / path)


def path(value: Value) -> str:
    """A path, absolute."""
    text = value.text("a path")
    if not text:
        raise value.wrong("found nothing, expected a path")
    return absolute(value, text)


def readable_file(value: Value) -> Path:
    """The path of a file that exists and that we may read."""
    found = Path(path(value))
    if value.source.secrets:
        _first_octets(value, found)
    return found


def _first_octets(value: Value, file: Path) -> bytes:
    try:
        with open_regular(file) as stream:
            return stream.read(MAX_SECRET)
    except OSError as error:
        raise value.wrong(f"{file}: {error.strerror}, expected a file that can be read") from None


def certificate_pair(value: Value) -> CertificatePair:
    """A certificate and its key."""
    return CertificatePair(**read_record(value, PAIR, required=PAIR))


PAIR: Fields = {"certificate": readable_file, "key": readable_file}


def secret(value: Value) -> str:
    """A secret: text, the first line of a file, or a variable.

    No problem repeats it.  Empty where secrets are not to be read.
    """
    if not value.is_mapping:
        found = value.text("a secret, {file: PATH} or {env: NAME}")
        if not found:
            raise value.wrong("found nothing, expected a secret, {file: PATH} or {env: NAME}")
        return found
    places = read_record(value, SECRET)
    if len(places) != 1:
        raise value.wrong(
            "found no single place for the secret, expected {file: PATH} or {env: NAME}"
        )
    return str(*places.values())


def _secret_file(value: Value) -> str:
    file = Path(path(value))
    if not value.source.secrets:
        return ""
    line = _first_octets(value, file).split(b"\n")[0].removesuffix(b"\r")
    try:
        found = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise value.wrong(f"{file}: not UTF-8 text, expected a secret as the first line") from None
    if not found:
        raise value.wrong(f"{file}: the first line is empty, expected a secret")
    return found


def _secret_variable(value: Value) -> str:
    name = value.text("the name of a variable")
    if not value.source.secrets:
        return ""
    found = value.source.environ.get(name, "")
    if not found:
        raise value.wrong(
            f"{name!r} is not set in the environment, expected a variable with a secret"
        )
    return found


SECRET: Fields = {"file": _secret_file, "env": _secret_variable}


def fingerprint(value: Value) -> str:
    """The SHA-256 fingerprint of a certificate, in lower-case hex without colons."""
    expected = "sha256: and 64 hexadecimal digits"
    algorithm, _, digits = value.text(expected).lower().partition(":")
    digits = digits.replace(":", "")
    if algorithm != "sha256" or not _FINGERPRINT.fullmatch(digits):
        raise value.wrong(f"found no fingerprint, expected {expected}")
    return digits


def network(value: Value) -> Network:
    """An IP address, or a block of them (RFC 4632)."""
    expected = "an IP network such as 192.0.2.0/24"
    text = value.text(expected)
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise value.wrong(f"found {text!r}, expected {expected}") from None


def name_or_network(value: Value) -> str | Network:
    """A host name, ``.domain`` for all below it, or an IP network."""
    expected = "a host name such as mx.example.com or .example.com, or an IP network"
    text = value.text(expected)
    with suppress(ValueError):
        return ip_network(text, strict=False)
    try:
        return domain_or_subdomains(value)
    except ConfigurationError:
        raise value.wrong(f"found {text!r}, expected {expected}") from None


def address(value: Value) -> str:
    """An IP address."""
    expected = "an IP address such as 192.0.2.1 or 2001:db8::1"
    text = value.text(expected)
    try:
        return str(ip_address(text))
    except ValueError:
        raise value.wrong(f"found {text!r}, expected {expected}") from None


def name_server(value: Value) -> tuple[str, int]:
    """ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT of a name server."""
    expected = "ADDRESS or ADDRESS:PORT, such as 192.0.2.53:5353 or [2001:db8::53]:5353"
    text = value.text(expected)
    address, port = (
        (text, DNS_PORT)
        if text.count(":") > 1 and text[0] != "["
        else host_and_port(text, DNS_PORT)
    )
    try:
        return str(ip_address(address)), port
    except ValueError:
        raise value.wrong(f"found {text!r}, expected {expected}") from None


def host_and_port(text: str, default: int) -> tuple[str, int]:
    """Take apart HOST, HOST:PORT, [IPv6] or [IPv6]:PORT.

    Returns ("", 0) for anything else.  A host name comes in its canonical form.
    """
    match = re.fullmatch(r"(?:\[([^][]+:[^][]*)\]|([^][:]+))(?::([0-9]{1,5}))?", text)
    if match is None:
        return "", 0
    host, port = match[1] or match[2], int(match[3] or default)
    is_place = is_host(host) and 0 < port <= MAX_PORT
    return (canonical_domain(host), port) if is_place else ("", 0)
