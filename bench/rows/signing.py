"""Mail in, and out to a next hop, signed by DKIM."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.figures import Bench, Figure, stopping
from bench.loads import Sink
from bench.opendkim import DOMAIN, SELECTOR, OpenDKIM, is_missing
from bench.rows.relay import relayed


class Signing:
    """In on one port, out to smtp-sink, signed with RSA; Postfix has OpenDKIM for that."""

    name = "signing"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        sink = Sink()
        key = make_key(bench.next_folder())
        ours = bench.ours(next_hop=f"smtp://127.0.0.1:{sink.port}", keys=_signing(key))
        opendkim = None if is_missing() else OpenDKIM(bench.next_folder(), key)
        postfix = None
        if opendkim is not None:
            postfix = bench.postfix(f"[127.0.0.1]:{sink.port}", opendkim.settings)
        with stopping(ours, postfix, opendkim, sink):
            rates = relayed(bench, ours, postfix, sink)
            what = "relay to smtp-sink, signed (RSA 2048), 1 KiB, 50 sessions"
            yield Figure(what, "messages/s", *rates, 1.5, peer="Postfix with OpenDKIM")


def make_key(folder: Path) -> Path:
    """Make a key in a folder of its own."""
    folder.mkdir()
    key = folder / "key.pem"
    command = ["openssl", "genrsa", "-traditional", "-out", str(key), "2048"]
    subprocess.run(command, stderr=subprocess.DEVNULL, check=True)
    key.chmod(0o600)
    return key


def _signing(key: Path) -> Mapping[str, Any]:
    """What the configuration of a server says that signs with the key."""
    dkim = [{"selector": SELECTOR, "key": str(key)}]
    return {"domains": {DOMAIN: {"deliver": "discard", "mailboxes": "any", "dkim": dkim}}}
