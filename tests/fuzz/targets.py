"""The readers of the program, each as a function of octets, with the seeds of each.

A target lets pass what its reader may raise.  All else that it raises is a fault, and so is that it
takes long.  `SEEDS` are octets to begin with, one line each, as Python writes them in bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.fuzz import files, lines, logins, mail, programs, records, sessions

SEEDS = Path(__file__).with_name("seeds.txt")
SHORT, LONG = 2000, 60_000  # octets that come at once: a line at most, or as much as there is
REPEATED = b"\xfe\xfd\xff"  # at the end of an input
MAX_TIME = 2.0  # seconds of processor time: of one input, where the fuzzer watches each branch

Check = Callable[[bytes], None]

CHECKS: Mapping[Check, int] = {
    **dict.fromkeys(
        (lines.grammar, lines.origins, lines.replies, lines.looks, lines.proxies), SHORT
    ),
    **dict.fromkeys((lines.wire, lines.rewritten_senders), SHORT),
    **dict.fromkeys((mail.content, mail.headers, mail.signatures, mail.conversions), LONG),
    **dict.fromkeys((mail.traces, mail.addresses, mail.notices), SHORT),
    **dict.fromkeys((records.records, records.senders, records.sender_results), SHORT),
    **dict.fromkeys((records.responses, records.reports, records.lists), SHORT),
    records.signed_messages: LONG,
    **dict.fromkeys((programs.filters, programs.keys, programs.dovecot), SHORT),
    programs.sealed_files: LONG,
    **dict.fromkeys((files.configuration, files.edits, files.users, files.maildrop), SHORT),
    **dict.fromkeys((files.tokens, files.maildirs, files.names_in_maildirs), SHORT),
    **dict.fromkeys((files.own_files, files.mailbox_lists, files.system_files), SHORT),
    files.log_lines: LONG,
    **dict.fromkeys((logins.log_ins, logins.servers_at_log_in, logins.pairs_at_log_in), SHORT),
    **dict.fromkeys((sessions.receiving, sessions.sending), SHORT),
}


class Target:
    """A check that counts what it gets, and must not take long.

    Octets that end in `REPEATED` are repeated, so that what grows with the square of them shows.
    """

    def __init__(self, check: Check, longest: int) -> None:
        self.name = check.__name__
        self.count = 0
        self._check = check
        self._longest = longest

    def __call__(self, octets: bytes) -> None:
        self.count += 1
        if octets.endswith(REPEATED):
            octets = octets.removesuffix(REPEATED) * (self._longest // len(octets))
        begun = time.thread_time()
        self._check(octets)
        taken = time.thread_time() - begun
        assert taken < MAX_TIME, f"{taken:.1f} s for {len(octets)} octets"


TARGETS = [Target(check, longest) for check, longest in CHECKS.items()]


def seeds(target: Target) -> list[bytes]:
    """The octets to begin a target with."""
    texts = SEEDS.read_text("ascii").splitlines()
    pairs = (text.partition(": ") for text in texts if not text.startswith("#"))
    return [
        text.encode("ascii").decode("unicode_escape").encode("latin-1")
        for name, _, text in pairs
        if name == target.name
    ]
