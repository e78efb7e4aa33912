"""Mail in, through a filter that signs it."""

from __future__ import annotations

from collections.abc import Iterator

from bench.figures import Bench, Figure, stopping
from bench.loads import Sink
from bench.opendkim import OpenDKIM, is_missing
from bench.rows.relay import relayed
from bench.rows.signing import make_key


class Filters:
    """In on one port, through OpenDKIM as a milter, out to smtp-sink: the same for both."""

    name = "filters"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        if is_missing():
            return
        sink = Sink()
        opendkim = OpenDKIM(bench.next_folder(), make_key(bench.next_folder()))
        milters = {"milters": [{"socket": f"inet:127.0.0.1:{opendkim.port}", "name": "opendkim"}]}
        ours = bench.ours(next_hop=f"smtp://127.0.0.1:{sink.port}", keys=milters)
        postfix = bench.postfix(f"[127.0.0.1]:{sink.port}", opendkim.settings)
        with stopping(ours, postfix, opendkim, sink):
            rates = relayed(bench, ours, postfix, sink)
            what = "relay to smtp-sink, OpenDKIM as milter, 1 KiB, 50 sessions"
            yield Figure(what, "messages/s", *rates, 1.5)
