"""SMTP to the server on this host, for users without the spool."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Iterator, Sequence

from mta.commands.local_server import REPLY_TIMEOUT, NoServer, Refused, connect
from mta.mail import Body, Envelope
from mta.settings import Settings
from mta.smtp.grammar import encode_xtext


def send(settings: Settings, envelope: Envelope, content: bytes) -> str:
    """Send one message.  Returns the reply to it.

    Raises NoServer, or Refused: some or all recipients do not get it.
    """
    try:
        with _Client(connect(settings)) as client:
            client.await_replies()
            return _transact(client, envelope, content)
    except smtplib.SMTPResponseException as error:
        raise Refused(error.smtp_code, error.smtp_error, envelope.recipients) from None
    except OSError as error:  # those of smtplib, too
        raise NoServer(str(error)) from None


def try_out(settings: Settings) -> None:
    """See that the server would begin to take a message.  Raises as `send` does."""
    try:
        with _Client(connect(settings)) as client:
            client.ehlo_or_helo_if_needed()
            code, text = client.mail("")
            if code != 250:
                raise Refused(code, text, ())
            client.rset()
    except smtplib.SMTPResponseException as error:
        raise Refused(error.smtp_code, error.smtp_error, ()) from None
    except OSError as error:  # those of smtplib, too
        raise NoServer(str(error)) from None


def _transact(client: _Client, envelope: Envelope, content: bytes) -> str:
    client.ehlo_or_helo_if_needed()
    code, text = client.mail(str(envelope.reverse_path), list(_mail_options(client, envelope)))
    if code != 250:
        raise Refused(code, text, envelope.recipients)
    refusals: list[Refused] = []
    for recipient in envelope.recipients:
        conditions = ",".join(sorted(condition.value for condition in recipient.notify))
        options = [f"NOTIFY={conditions}"] if conditions and client.has_extn("dsn") else []
        code, text = client.rcpt(str(recipient.forward_path), options)
        if code not in (250, 251):
            reason = f"{recipient.forward_path}: {text.decode('utf-8', 'replace')}"
            refusals.append(Refused(code, reason, (recipient,)))
    if len(refusals) < len(envelope.recipients):
        code, text = client.data(content)
        if code != 250:
            raise Refused(code, text, envelope.recipients)
    if refusals:
        raise _worst(refusals)
    return text.decode("utf-8", "replace")


def _worst(refusals: Sequence[Refused]) -> Refused:
    """The refusal that counts: a permanent one, else one for all recipients."""
    for refusal in refusals:
        if not refusal.is_transient:
            return refusal
    refusals[0].recipients = tuple(each for one in refusals for each in one.recipients)
    return refusals[0]


def _mail_options(client: _Client, envelope: Envelope) -> Iterator[str]:
    if envelope.body is Body.EIGHT_BIT and client.has_extn("8bitmime"):
        yield "BODY=8BITMIME"
    if envelope.smtputf8:
        client.command_encoding = "utf-8"
        yield "SMTPUTF8"
    if client.has_extn("dsn"):
        if envelope.ret:
            yield f"RET={envelope.ret}"
        if envelope.envid:
            yield f"ENVID={encode_xtext(envelope.envid)}"


class _Client(smtplib.SMTP):
    """A client on a connection that stands."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        super().__init__("localhost", local_hostname="localhost", timeout=REPLY_TIMEOUT)

    def await_replies(self) -> None:
        """Wait for replies as long as one may take."""
        self._connection.settimeout(REPLY_TIMEOUT)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._connection
