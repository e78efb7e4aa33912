"""The attacks that are measured, and the server that they find."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.programs.hostile import Attack, Manner
from bench.servers import DOMAIN, LISTENER
from mta.users.file import UserFile

ATTACKED, USER, PASSWORD = "alice", "carol", "the right one"  # two users
FULL = "full.example"  # whose mailboxes are
MUTE = "mute.example"  # whose host never says a word
DEAF = "deaf.example"  # whose host says what it has to, and reads nothing
DEAF_WORDS = "220 deaf.example|250 deaf.example|250 OK|250 OK|354 Go on|"
EHLO = "EHLO client.example|"
MAIL = f"{EHLO}MAIL FROM:<a@client.example>|"
RCPT = f"RCPT TO:<inbox@{DOMAIN}>|"
DATA = f"{MAIL}{RCPT}DATA|"
BIG = 50_000_000  # octets
PROXY = "PROXY TCP4 192.0.2.1 192.0.2.2 1234 25|"
LHLO = f"{PROXY}LHLO client.example|"
WRONG = b64encode(f"\0{ATTACKED}\0a wrong one".encode()).decode()
UNKNOWN = b64encode(b"\0nobody\0a wrong one").decode()
SCRAM = b64encode(f"n,,n={ATTACKED},r=abcdefgh".encode()).decode()
NESTED = "{Content-Type: multipart/mixed; boundary=b#||--b#| * 10000}||\xe9|"  # 8-bit

AGAIN = f"Delivered-To: loop@{DOMAIN}||x|"
LARGE = f"|{{{'x' * 98}| * 50000}}"


def keys(folder: Path, mute: int, deaf: int) -> Mapping[str, Any]:
    """The configuration of the server, beside two others with these ports.

    Loopback is the Internet here, and all limits are the default ones.  Writes its users.
    """
    folder.mkdir(exist_ok=True)
    users = folder / "attacked-users.yaml"
    for name in (ATTACKED, USER):
        UserFile(users).add(name, PASSWORD)
    mailbox = {"deliver": "maildir:mail/{local}", "mailboxes": "any"}
    aliases = {"bomb": [f"fuse{number}@{DOMAIN}" for number in range(10)]}
    for number in range(10):
        aliases[f"fuse{number}"] = [f"{each}@{DOMAIN}" for each in range(number, 1000, 10)]
    return {
        "relay": {"networks": []},
        "limits": {},
        "users": str(users),
        "listen": [
            LISTENER,
            {**LISTENER, "service": "submission", "tls": "implicit"},
            {**LISTENER, "service": "odmr", "tls": "off", "allow_cleartext_auth": True},
            {"endpoint": f"haproxy:{LISTENER['endpoint']}", "service": "lmtp"},
        ],
        "milters": [{"socket": f"inet:127.0.0.1:{mute}", "services": ["lmtp"]}],
        "domains": {
            DOMAIN: {**mailbox, "aliases": aliases, "forward": {"loop": f"loop@{MUTE}"}},
            FULL: {**mailbox, "deliver": "maildir:full/{local}", "quota": 1},
            MUTE: {"deliver": f"smtp://127.0.0.1:{mute}"},
            DEAF: {"deliver": f"smtp://127.0.0.1:{deaf}"},
        },
    }


def message(to: str, content: str = "Subject: x||x|") -> str:
    """A message as it is said, from MAIL to its end."""
    return f"MAIL FROM:<a@client.example>|RCPT TO:<{to}>|DATA|{content}.|"


def client_hello() -> str:
    """The first octets of TLS."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="mta.example")
    with suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    return outgoing.read().decode("latin-1")


@dataclass(frozen=True)
class Kind:
    """Clients that attack a listener, by what they do there."""

    name: str
    manner: Manner
    before: str = ""
    again: str = ""
    sessions: int = 50
    sources: int = 1
    service: str = "smtp"

    def attack(self, ports: Mapping[str, int]) -> Attack:
        """Aim at a server with these ports."""
        words = (self.manner.value, self.before, self.again)
        return Attack(ports[self.service], self.sessions, *words, sources=self.sources)


FLOOD, DEAF_CLIENT, DRIP = Manner.FLOOD, Manner.DEAF, Manner.DRIP
LEAVE, TALK = Manner.LEAVE, Manner.TALK
CONNECTIONS: Sequence[Kind] = (
    Kind("10,000 that say nothing, from 100 hosts", Manner.SILENT, sessions=10_000, sources=100),
    Kind("1,000 that say nothing, from 100 hosts", Manner.SILENT, sessions=1000, sources=100),
    Kind("connections", LEAVE),
    Kind("connections from 20 hosts", LEAVE, "", "", 500, 20),
    Kind("TLS handshakes", LEAVE, client_hello(), "", 50, 1, "submission"),
    Kind("TLS handshakes from 20 hosts", LEAVE, client_hello(), "", 500, 20, "submission"),
    Kind("HELP, replies not read", DEAF_CLIENT, EHLO, "HELP|"),
    Kind("EHLO, replies not read, from 10 hosts", DEAF_CLIENT, "", EHLO, 500, 10),
)
SLOW: Sequence[Kind] = (
    Kind("one octet a second: PROXY header", DRIP, "", PROXY, 1000, 20, "lmtp"),
    Kind("one octet a second: before the greeting", DRIP, PROXY, "LHLO c|", 1000, 20, "lmtp"),
    Kind("one octet a second: TLS", DRIP, "", client_hello(), 1000, 20, "submission"),
    Kind("one octet a second: EHLO", DRIP, "", "N", 1000, 20),
    Kind("one octet a second: AUTH", DRIP, f"{EHLO}AUTH PLAIN|", "A", 1000, 20, "odmr"),
    Kind("one octet a second: MAIL", DRIP, EHLO, "MAIL FROM:<{a * 500}", 1000, 20),
    Kind("one octet a second: DATA", DRIP, DATA, "x", 1000, 20),
    Kind("one octet a second: BDAT", DRIP, f"{MAIL}{RCPT}BDAT 100000 LAST|", "x", 1000, 20),
)
COMMANDS: Sequence[Kind] = (
    Kind("RCPT, refused", FLOOD, MAIL, "RCPT TO:<x@elsewhere.test>|"),
    Kind("RCPT, taken", FLOOD, MAIL, RCPT),
    Kind("RCPT, from 20 hosts", FLOOD, MAIL, RCPT, 500, 20),
    Kind("100,000 RCPT in one session", FLOOD, EHLO, f"{MAIL}{{{RCPT} * 100000}}", 1),
    Kind("NOOP", FLOOD, EHLO, "NOOP|"),
    Kind("RSET", FLOOD, EHLO, "RSET|"),
    Kind("EHLO", FLOOD, EHLO, EHLO),
    Kind("transactions given up", FLOOD, EHLO, f"MAIL FROM:<a@client.example>|{RCPT}RSET|"),
    Kind("empty chunks", FLOOD, MAIL + RCPT, "BDAT 0|"),
    Kind("chunks of two octets", FLOOD, MAIL + RCPT, "BDAT 2||"),
    Kind("AUTH PLAIN, wrong password", TALK, EHLO, f"AUTH PLAIN {WRONG}|", 500, 20, "odmr"),
    Kind("AUTH PLAIN, unknown user", TALK, EHLO, f"AUTH PLAIN {UNKNOWN}|", 500, 20, "odmr"),
    Kind("AUTH SCRAM", TALK, EHLO, f"AUTH SCRAM-SHA-256 {SCRAM}|", 500, 20, "odmr"),
)
CONTENT: Sequence[Kind] = (
    Kind("header without an end", FLOOD, DATA, "Field: x|", 10),
    Kind("line without an end", FLOOD, DATA, "{x * 1000}", 10),
    Kind("header section of 50 MB", FLOOD, EHLO, f"{DATA}{{Field: x| * {BIG // 10}}}|.|", 10),
    Kind("line of 50 MB", FLOOD, EHLO, f"{DATA}Subject: x||{{x * {BIG}}}|.|", 10),
    Kind("10,000 parts in each other", FLOOD, EHLO, message(f"inbox@{DEAF}", NESTED), 10),
    Kind("mail that comes again", FLOOD, EHLO, message(f"loop@{DOMAIN}", AGAIN), 10),
    Kind("mail for a full mailbox", FLOOD, EHLO, message(f"inbox@{FULL}"), 10),
    Kind("mail for a host that says nothing", FLOOD, EHLO, message(f"inbox@{MUTE}"), 10),
    Kind("mail for a host that reads nothing", FLOOD, EHLO, message(f"inbox@{DEAF}", LARGE), 10),
    Kind("mail for a filter that says nothing", FLOOD, LHLO, f"{MAIL}{RCPT}", 500, 20, "lmtp"),
    Kind("mail for 1,000, by aliases", FLOOD, EHLO, message(f"bomb@{DOMAIN}"), 10),
)
KINDS = (*CONNECTIONS, *SLOW, *COMMANDS, *CONTENT)
