"""The part of the configuration that every local user may know.

Users who may not read the file itself need it to send mail.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mta import __version__
from mta.files import atomic_write, open_regular
from mta.mail import Agent, Hop
from mta.settings import Domain, Limits, Listener, ListenerTLS, Service, Settings

FILE = "public.json"  # in the spool
MAX_OCTETS = 2**20  # of the file


def publish(spool: Path, settings: Settings) -> None:
    """Write down what programs that send mail need, and no more.  Raises OSError."""
    text = json.dumps(_document(settings), indent=1).encode()
    path = spool / FILE
    if not path.is_file() or path.read_bytes() != text:
        atomic_write(path, text, 0o644)


def read(spool: Path) -> Settings | None:
    """The settings that were published; None where there are none."""
    try:
        with open_regular(spool / FILE) as file:
            document = json.loads(file.read(MAX_OCTETS))
        return _settings(spool, document)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def version(spool: Path) -> str:
    """The version of the server that published last.

    Empty: it is not known.
    """
    try:
        with open_regular(spool / FILE) as file:
            found = json.loads(file.read(MAX_OCTETS))["version"]
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    return found if isinstance(found, str) else ""


def _document(settings: Settings) -> dict[str, Any]:
    return {
        "version": __version__,
        "hostname": settings.hostname,
        "domains": [*settings.domains],
        "message_size": settings.limits.message_size,
        "listen": [
            [listener.endpoint, listener.tls.value]
            for listener in settings.listen
            if listener.service is Service.SMTP
        ],
    }


def _settings(spool: Path, document: dict[str, Any]) -> Settings:
    unknown = Hop(Agent.MAILDIR)
    return Settings(
        hostname=str(document["hostname"]),
        spool=str(spool),
        domains={str(name): Domain(str(name), unknown) for name in document["domains"]},
        limits=Limits(message_size=int(document["message_size"])),
        listen=tuple(
            Listener(str(endpoint), Service.SMTP, ListenerTLS(tls))
            for endpoint, tls in document["listen"]
        ),
    )
