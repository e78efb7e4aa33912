"""Text in parameters: xtext, and the addresses of ORCPT.  RFC 3461, RFC 6533."""

from __future__ import annotations

import re

from mta.smtp.errors import LocalFault
from mta.smtp.grammar.addresses import one_of

PRINTABLE = re.compile(one_of(" -~") + "+")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEXCHAR = re.compile(rb"\+([0-9A-F]{2})")
_QCHAR = one_of(r"!-*,-<>-\[\]-~")
_UTF8_ADDR = re.compile(rf"(?:{_QCHAR}|\\x\{{[0-9A-F]{{2,6}}\}})*")
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]+)\}")
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")


def decode_xtext(text: str) -> str:
    """Decode xtext (RFC 3461 section 4), as UTF-8.  Raises ValueError."""
    if not _XTEXT.fullmatch(text):
        raise ValueError(f"not xtext: {text!r}")
    return _HEXCHAR.sub(lambda code: bytes([int(code[1], 16)]), text.encode("ascii")).decode()


def decode_utf8_addr(text: str) -> str:
    """Return the address of an ORCPT of type utf-8.  Raises ValueError."""
    if not _UTF8_ADDR.fullmatch(text):
        raise ValueError("neither utf-8-addr-xtext nor utf-8-addr-unitext")
    return _EMBEDDED.sub(lambda code: chr(int(code[1], 16)), text)


def encode_xtext(text: str) -> str:
    """Encode text as xtext (RFC 3461 section 4), by way of UTF-8.  Raises LocalFault."""
    try:
        octets = text.encode()
    except UnicodeEncodeError:
        raise LocalFault(f"not Unicode text: {text!r}") from None
    return "".join(
        chr(octet) if 0x21 <= octet <= 0x7E and octet not in b"+=" else f"+{octet:02X}"
        for octet in octets
    )


def encode_original(original: str) -> str:
    """Encode an ORCPT value, ``addr-type;address``.  See RFC 3461 section 4.2, RFC 6533 section 3.

    Raises LocalFault.
    """
    kind, _, address = original.partition(";")
    if kind.lower() != "utf-8":
        return f"{kind};{encode_xtext(address)}"
    encoded = _NOT_QCHAR.sub(lambda character: f"\\x{{{ord(character[0]):02X}}}", address)
    return f"{kind};{encoded}"
