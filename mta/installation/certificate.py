"""The certificate of a new server: certbot's, or one that signs itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from zope.interface import implementer

from mta.installation.command import run
from mta.installation.interfaces import ChangeFailed, IChange, State
from mta.installation.places import Places
from mta.tls.files import TLSFault, certificates_in
from mta.tls.selfsigned import FILE, self_signed
from mta.tls.verify import fingerprint

LIVE = Path("/etc/letsencrypt/live")
COPIES = ("cert.pem", "key.pem")  # beside the configuration
HOOK = Path("/etc/letsencrypt/renewal-hooks/deploy/mta")


@implementer(IChange)
class SelfSigned:
    """A certificate that signs itself, which a peer knows by its pin."""

    def __init__(self, places: Places, hostname: str) -> None:
        self.title = f"self-signed certificate for {hostname}"
        self._spool = places.now(places.spool)
        self._hostname = hostname

    def state(self) -> State:
        """See `IChange.state`."""
        return State.DONE if (self._spool / FILE).exists() else State.NEEDED

    def difference(self) -> Sequence[str]:
        """See `IChange.difference`."""
        return [f"new {self.title}"]

    def apply(self) -> str:
        """See `IChange.apply`."""
        try:
            self_signed(self._spool, self._hostname)
        except TLSFault as fault:
            raise ChangeFailed(str(fault)) from None
        return f"made a {self.title}, pin: {pin_of(self._spool / FILE)}"


@implementer(IChange)
class CertbotCopy:
    """A copy of certbot's certificate, made by the deploy hook."""

    def __init__(self, places: Places, live: Path) -> None:
        self.title = f"copy of the certificate in {live}"
        self._live = live
        self._copies = [places.etc / name for name in COPIES]

    def state(self) -> State:
        """See `IChange.state`."""
        pairs = zip(("fullchain.pem", "privkey.pem"), self._copies, strict=True)
        is_same = all(
            copy.exists() and copy.read_bytes() == (self._live / name).read_bytes()
            for name, copy in pairs
        )
        return State.DONE if is_same else State.NEEDED

    def difference(self) -> Sequence[str]:
        """See `IChange.difference`."""
        return [f"new {self.title}, and after each renewal"]

    def apply(self) -> str:
        """See `IChange.apply`."""
        run(["env", f"RENEWED_LINEAGE={self._live}", str(HOOK)])
        return f"made a {self.title}"


def pin_of(path: Path) -> str:
    """The pin of the certificate in a file.  Raises ChangeFailed."""
    try:
        return f"sha256:{fingerprint(certificates_in(path)[0])}"
    except TLSFault as fault:
        raise ChangeFailed(str(fault)) from None


def certbot_folder(hostname: str) -> Path | None:
    """The folder of certbot's certificate for a host, if any."""
    folder = LIVE / hostname
    is_there = os.access(folder / "privkey.pem", os.R_OK) and (folder / "fullchain.pem").exists()
    return folder if is_there else None
