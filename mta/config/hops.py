"""Next hops in the configuration: text such as ``smtp://host``, or mappings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from mta.config.document import Fields, Value, read_record, suggest
from mta.config.values import absolute, boolean, fingerprint, host_and_port, member_of, secret, user
from mta.mail import Agent, Hop, Security

FORMS = {
    "mx": "mx",
    "smtp": "smtp://[USER:SECRET@]HOST[:PORT]",
    "smtps": "smtps://[USER:SECRET@]HOST[:PORT]",
    "lmtp": "lmtp://HOST[:PORT]",
    "lmtp+unix": "lmtp+unix:PATH",
    "maildir": "maildir:PATH",
    "pipe": "pipe:COMMAND",
    "hold": "hold:PEER",
    "discard": "discard",
    "reject": "reject:TEXT",
}
PORTS = {"smtp": 25, "smtps": 465, "lmtp": 24}
PLACEHOLDERS = ("{domain}", "{local}", "{address}")
COMMAND_PLACEHOLDERS = ("sender", "recipient", "local", "domain")

_PLACEHOLDER = re.compile(rf"\{{({'|'.join(COMMAND_PLACEHOLDERS)})\}}")
# What reads a script, or code behind -c or -e; and what takes all of its words for code.
_INTERPRETERS = (
    *("sh", "bash", "dash", "ksh", "zsh", "fish", "busybox"),
    *("python", "perl", "ruby", "node", "lua", "php", "guile"),
)
_ALL_CODE = ("ssh", "rsh", "eval", "sed", "awk", "gawk", "mawk")


def next_hop(value: Value) -> Hop:
    """A next hop: text, or a mapping with ``to``."""
    if not value.is_mapping:
        return _text_hop(value)
    fields = read_record(value, HOP, required=["to"])
    hop = _with_tls(value, _with_user(value, fields), fields)
    if "xforward" in fields and hop.agent not in (Agent.SMTP, Agent.LMTP):
        raise value.wrong(f"{hop.agent.value} has no use for 'xforward', expected smtp or lmtp")
    return replace(hop, xforward=fields.get("xforward", False))


def smtp_host(value: Value) -> Hop:
    """A next hop that is one SMTP host: text, or a mapping."""
    if value.is_mapping:
        hop = _with_user(value, read_record(value, SMTP_HOST, required=["to"]))
    else:
        hop = _text_hop(value)
    if hop.agent is not Agent.SMTP:
        raise value.wrong(f"found {hop.agent.value}, expected {FORMS['smtp']} or {FORMS['smtps']}")
    return hop


def _with_user(value: Value, fields: dict[str, Any]) -> Hop:
    hop: Hop = fields["to"]
    if ("user" in fields) != ("secret" in fields):
        raise value.wrong("found only one of 'user' and 'secret', expected both")
    if "user" not in fields:
        return hop
    if hop.agent is not Agent.SMTP or hop.user:
        raise value.wrong(
            "no use for 'user' and 'secret', expected smtp or smtps without a user in it"
        )
    return replace(hop, user=fields["user"], secret=fields["secret"])


def _with_tls(value: Value, hop: Hop, fields: dict[str, Any]) -> Hop:
    """The hop with its demands of TLS.  A pinned certificate is one."""
    for key in ("tls", "pin"):
        if key in fields and not _can_have_tls(hop):
            raise value.wrong(
                f"{hop.agent.value} has no use for {key!r}, expected mx, smtp, smtps or lmtp"
            )
    default = Security.VERIFY if "pin" in fields else hop.security
    security = fields.get("tls", default)
    if hop.implicit_tls and security is Security.OFF:
        raise value.wrong("smtps always has TLS, expected 'tls' to be opportunistic or verify")
    if "pin" in fields and security is not Security.VERIFY:
        raise value.wrong("'pin' is a demand, expected 'tls' to be verify")
    return replace(hop, security=security, pin=fields.get("pin", ""))


def _can_have_tls(hop: Hop) -> bool:
    over_the_net = not hop.next_hop.startswith("unix:")
    return hop.agent in (Agent.MX, Agent.SMTP, Agent.LMTP) and over_the_net


# A secret may follow the first colon: no problem repeats what comes behind it.
def _text_hop(value: Value) -> Hop:
    scheme, colon, rest = value.text("a next hop").partition(":")
    match scheme, bool(colon), rest.strip():
        case "mx", False, _:
            return Hop(Agent.MX)
        case "discard", False, _:
            return Hop(Agent.DISCARD)
        case "smtp" | "smtps" | "lmtp", True, authority if authority.startswith("//"):
            return _host(value, scheme, authority.removeprefix("//").removesuffix("/"))
        case "lmtp+unix", True, str(path) if path:
            return Hop(Agent.LMTP, "unix:" + absolute(value, path))
        case "maildir", True, str(template) if template:
            return Hop(Agent.MAILDIR, _template(value, template))
        case "pipe", True, str(command) if command:
            return Hop(Agent.PIPE, _command(value, command))
        case "hold", True, str(peer) if peer:
            return Hop(Agent.HOLD, peer)
        case "reject", True, str(reason) if reason:
            return Hop(Agent.REJECT, _reason(value, reason))
    if scheme in FORMS:
        raise value.wrong(f"{scheme!r} has the wrong form, expected {FORMS[scheme]}")
    raise value.wrong(f"{scheme!r} is no next hop, {suggest(scheme, FORMS)}")


def _host(value: Value, scheme: str, authority: str) -> Hop:
    userinfo, at, address = authority.rpartition("@")
    host, port = host_and_port(address, PORTS[scheme])
    if not host:
        raise value.wrong(f"no valid HOST or HOST:PORT, expected {FORMS[scheme]}")
    if scheme == "lmtp":
        if at:
            raise value.wrong(f"lmtp has no use for a user, expected {FORMS[scheme]}")
        return Hop(Agent.LMTP, host, port)
    hop = Hop(Agent.SMTP, host, port, implicit_tls=scheme == "smtps")
    return _with_userinfo(value, hop, userinfo) if at else hop


def _with_userinfo(value: Value, hop: Hop, userinfo: str) -> Hop:
    """Take USER:SECRET apart and undo percent-encoding (RFC 3986 section 2.1)."""
    encoded = userinfo.partition(":")[::2]
    if not all(encoded):
        raise value.wrong("only one of USER and SECRET, expected USER:SECRET@HOST")
    if re.search("%(?![0-9A-Fa-f]{2})", userinfo):
        raise value.wrong("a bare % in USER or SECRET, expected it written as %25")
    try:
        name, password = (unquote(part, errors="strict") for part in encoded)
    except UnicodeDecodeError:
        raise value.wrong("USER or SECRET is not UTF-8, expected %XX of UTF-8 octets") from None
    return replace(hop, user=name, secret=password)


def _template(value: Value, template: str) -> str:
    rest = template
    for placeholder in PLACEHOLDERS:
        rest = rest.replace(placeholder, "")
    strange = re.search(r"\{[^{}]*\}?|\}", rest)
    if strange:
        raise value.wrong(f"{strange[0]!r} is no placeholder, {suggest(strange[0], PLACEHOLDERS)}")
    return absolute(value, template)


def _command(value: Value, command: str) -> str:
    try:
        program, *arguments = shlex.split(command) or [""]
    except ValueError:
        raise value.wrong("a quote in the command is not closed") from None
    for name in re.findall(r"\{(\w+)\}", command):
        if name not in COMMAND_PLACEHOLDERS:
            hint = suggest(name, COMMAND_PLACEHOLDERS)
            raise value.wrong(f"{{{name}}} is no placeholder of a command, {hint}")
    if found := _PLACEHOLDER.search(program):
        raise value.wrong(f"{found[0]} would choose the program, expected a fixed one")
    name = program.rpartition("/")[2]
    for number, word in enumerate(arguments):
        found = _PLACEHOLDER.search(word)
        if found and _is_code(name, arguments, number):
            raise value.wrong(
                f"{found[0]} would be run as code there, and anybody chooses what it is:"
                f' expected a word of its own, or "${found[1].upper()}" of the environment'
            )
    return command


def _is_code(program: str, arguments: Sequence[str], number: int) -> bool:
    """Return whether an interpreter would read that argument as code."""
    word, before = arguments[number], arguments[number - 1] if number else ""
    if re.search(r"\s", word) or program in _ALL_CODE:
        return True
    if re.fullmatch("-[A-Za-z]*c|--command|--eval", before):
        return True
    if program.rstrip("0123456789.") not in _INTERPRETERS:
        return False
    is_script = all(each.startswith("-") for each in arguments[:number])
    return is_script or bool(re.fullmatch("-[A-Za-z]*e", before))


def _reason(value: Value, reason: str) -> str:
    # It becomes the text of a reply, which is ASCII to all who did not ask for SMTPUTF8.
    if not reason.isascii():
        raise value.wrong("the text of reject is not ASCII, expected plain English letters")
    return reason


SMTP_HOST: Fields = {"to": _text_hop, "user": user, "secret": secret}
HOP: Fields = {**SMTP_HOST, "tls": member_of(Security), "pin": fingerprint, "xforward": boolean}
