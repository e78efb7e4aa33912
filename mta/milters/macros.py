"""Macros: facts about session and message, by names of sendmail's.

``docs/milters.rst`` has the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from mta import __version__
from mta.mail import Agent, Hop, Mailbox, Reply
from mta.milters.negotiation import Agreement, Stage
from mta.session import LOCAL_ADDRESS, UNKNOWN_ADDRESS, Session

UNKNOWN = "unknown"

# The macros of each stage, where a filter has not asked for others.
USUAL: Mapping[Stage, tuple[str, ...]] = {
    Stage.CONNECT: (
        "j",
        "{daemon_name}",
        "v",
        "_",
        "{client_addr}",
        "{client_name}",
        "{client_port}",
        "{client_ptr}",
    ),
    Stage.HELLO: ("{tls_version}", "{cipher}", "{cipher_bits}"),
    Stage.MAIL: (
        "i",
        "{auth_type}",
        "{auth_authen}",
        "{auth_author}",
        "{mail_addr}",
        "{mail_host}",
        "{mail_mailer}",
    ),
    Stage.RECIPIENT: ("i", "{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"),
    Stage.DATA: ("i",),
    Stage.END_OF_HEADER: ("i",),
    Stage.END: ("i",),
}
_MAILERS = {
    Agent.MX: "smtp",
    Agent.SMTP: "smtp",
    Agent.HOLD: "smtp",
    Agent.LMTP: "lmtp",
    Agent.REJECT: "error",
}


@dataclass(slots=True)
class Macros:
    """The values of macros in one session.  What is not known has no value."""

    hostname: str
    session: Session
    daemon: str
    _message: dict[str, str] = field(default_factory=dict)  # all, while one is under way

    def of(self, stage: Stage, agreement: Agreement) -> Iterator[tuple[str, str]]:
        """The macros of a stage that have a value, by name."""
        known = self._message or self._session()
        for name in agreement.macros.get(stage, USUAL[stage]):
            if value := known.get(name, ""):
                yield name, value

    def begin(self, id: str, reverse_path: Mailbox, author: str) -> None:
        """Begin a message.  `author` is what MAIL says of who submitted it."""
        self._message = self._session() | {
            "i": id,
            "{auth_author}": author,
            "{mail_addr}": str(reverse_path),
            "{mail_host}": reverse_path.domain,
            "{mail_mailer}": "smtp",
        }

    def recipient(self, forward_path: Mailbox, hop: Hop | None) -> None:
        """Go on to a recipient; None: its way is not known."""
        self._message |= {
            "{rcpt_addr}": str(forward_path),
            "{rcpt_host}": forward_path.domain,
            "{rcpt_mailer}": "error" if hop is None else _MAILERS.get(hop.agent, "local"),
        }

    def refused(self, reply: Reply) -> None:
        """Go on to a recipient that was refused, as sendmail does."""
        self._message |= {
            "{rcpt_addr}": reply.text,
            "{rcpt_host}": reply.enhanced or str(reply.code),
            "{rcpt_mailer}": "error",
        }

    def end(self) -> None:
        """End the message."""
        self._message = {}

    def _session(self) -> dict[str, str]:
        session, tls = self.session, self.session.tls
        address = client_address(session)
        address = _ADDRESSES.get(address, address)
        name = client_name(session) or UNKNOWN
        return {
            "j": self.hostname,
            "v": f"mta {__version__}",
            "_": f"{name} [{address}]",
            "{daemon_name}": self.daemon,
            "{client_addr}": address,
            "{client_name}": name,
            "{client_port}": str(session.port),
            "{client_ptr}": (session.pointer if session.told is None else "") or name,
            "{client_resolve}": "OK" if session.name and name != UNKNOWN else "FAIL",
            "{tls_version}": tls.version if tls else "",
            "{cipher}": tls.cipher if tls else "",
            "{cipher_bits}": str(tls.bits or "") if tls else "",
            "{auth_type}": session.mechanism or "XCLIENT" if session.identity else "",
            "{auth_authen}": session.identity,
        }


_NEAR = [
    ip_network(each)
    for each in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1122, RFC 1918
        *("169.254.0.0/16", "0.0.0.0/8", "::/127", "fc00::/7", "fe80::/10"),  # RFC 6890
    )
]
_ADDRESSES = {LOCAL_ADDRESS: "127.0.0.1", UNKNOWN_ADDRESS: UNKNOWN}


def client_address(session: Session) -> str:
    """The address of the client.

    Filters spare near hosts: one that was told is no such host, whatever its address is.
    """
    if session.told is None:
        return session.client
    try:
        address = ip_address(session.client)
    except ValueError:
        return UNKNOWN_ADDRESS
    return UNKNOWN_ADDRESS if any(address in each for each in _NEAR) else session.client


def client_name(session: Session) -> str:
    """The name of the client, empty where it has none."""
    if session.told is not None and client_address(session) == UNKNOWN_ADDRESS:
        return ""
    return "localhost" if session.client == LOCAL_ADDRESS else session.name
