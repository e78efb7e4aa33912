"""``mta pair --renew RELAY``: another secret, by the link itself."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from zope.interface import implementer

from mta import config
from mta.commands.console import Failed, settings_of
from mta.commands.errand import IErrand, Progress, run
from mta.commands.pair_files import LinkFiles
from mta.commands.running_server import tell_server
from mta.mail import Hop
from mta.pairing.pairings import new_password
from mta.pairing.request import PairingRefused
from mta.privileges import act_as_server, require_no_root
from mta.settings import MINUTE, Peer, Settings

MAX_TIME = 2 * MINUTE  # seconds: for all of it


def renew(arguments: argparse.Namespace, peer: Peer) -> None:
    """Give the relay and this host another secret for their link.  Raises Failed."""
    settings = settings_of(arguments, secrets=True, keep_root=True)
    hop = settings.peers[peer.name].connect
    if hop is None or not hop.secret:
        raise Failed(f"{peer.name} has no `secret` in `connect` that could be renewed")
    require_no_root(settings, has_uid=False)
    errand = _Renewal(arguments.config.resolve(), settings, settings.peers[peer.name], hop)
    try:
        run(errand, MAX_TIME)
    except Failed as failure:
        raise Failed(f"{failure}\n{errand.advice}") from None


@implementer(IErrand)
class _Renewal:
    """The steps of a renewal.

    The relay takes both secrets until the new one was used: wherever the steps end, the secret
    that is in the file here opens the link.
    """

    def __init__(self, file: Path, settings: Settings, peer: Peer, hop: Hop) -> None:
        self._file = file
        self._settings = settings
        self._peer = peer
        self._hop = hop
        self.advice = (
            "mta: the old secret stays.  Where the link can't be mended, say on the relay"
            f" `mta pair --renew {hop.user}`: it prints a new line for here"
        )

    async def take(self, reactor: Any, progress: Progress) -> None:
        """See `IErrand.take`."""
        hop, password = self._hop, new_password()
        progress.step = f"calling {hop.next_hop} port {hop.port}"
        await self._converse(hop.secret, password, reactor)
        progress.done("a new secret was agreed, which counts beside the old one")
        progress.step = f"writing {self._write(password)}"
        self.advice = (
            "mta: both secrets count until the new one, which is in the file, was used:"
            f" mta turn {self._peer.name}"
        )
        progress.done("the new secret is there")
        act_as_server(self._settings)
        progress.step = "the server"
        runs = tell_server(self._settings)
        progress.done("reads its configuration again" if runs else "does not run")
        progress.step = "logging in with the new secret"
        await self._converse(password, "", reactor)
        progress.done("the old one is of no use any more")

    async def _converse(self, secret: str, password: str, reactor: Any) -> None:
        from mta.pairing.renewal import RenewalRole
        from mta.service.pairing import converse, logged_in

        role = RenewalRole(logged_in(self._settings, replace(self._hop, secret=secret)), password)
        await converse(self._settings, self._peer, role, reactor)
        if role.refusal:
            raise PairingRefused(role.refusal)

    def _write(self, password: str) -> Path:
        """Write the secret, and the configuration where its file is another."""
        files = LinkFiles(self._file, self._peer.name)
        path = files.secret()
        key = ("peers", self._peer.name, "connect", "secret")
        text = config.edited(self._file, {key: {"file": files.name_of(path)}})
        files.write_secret(path, password, self._settings)
        if text != self._file.read_text("utf-8"):
            config.save(self._file, text)
        return path
