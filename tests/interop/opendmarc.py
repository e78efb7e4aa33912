"""OpenDMARC's library, asked about messages in a process of its own.

``python -m tests.interop.opendmarc NAME_SERVER SUFFIXES`` answers a line of JSON (the domain of
From:, the domain that SPF vouches for, those of DKIM) by the word for what becomes of the message.
It knows DMARC as RFC 7489 has it.
"""

from __future__ import annotations

import ctypes
import json
import socket
import subprocess
import sys
from collections.abc import Sequence

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.processes import ROOT, source_environment, temporary_folder

LIBRARY = "libopendmarc.so.2"  # of the Debian package libopendmarc2, version 1.4
WORDS = {14: "no policy", 15: "pass", 16: "reject", 17: "quarantine", 18: "none"}
_MOZILLA = 1  # the form of the list of public suffixes
_PASSED, _FAILED = 1, 2
_MAIL_FROM = 1
_IPV4 = 4


class _Address(ctypes.Structure):
    """``struct sockaddr_in``."""

    _fields_ = (
        ("family", ctypes.c_ushort),
        ("port", ctypes.c_ushort),
        ("address", ctypes.c_ubyte * 4),
        ("zero", ctypes.c_ubyte * 8),
    )


class _Settings(ctypes.Structure):
    """``OPENDMARC_LIB_T``; later versions have more at its end."""

    _fields_ = (
        ("tld_type", ctypes.c_int),
        ("tld_source_file", ctypes.c_char * 4096),
        ("nscount", ctypes.c_int),
        ("nsaddr_list", _Address * 3),
        ("more", ctypes.c_int * 16),
    )


class OpenDMARC:
    """The process; ended after the test.  Skips the test where the library is not there."""

    def __init__(
        self, case: SynchronousTestCase, name_server: str, suffixes: Sequence[str]
    ) -> None:
        try:
            ctypes.CDLL(LIBRARY)
        except OSError:
            raise SkipTest("OpenDMARC is not installed") from None
        path = temporary_folder(case) / "suffixes"
        path.write_text("".join(f"{each}\n" for each in suffixes))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.interop.opendmarc", name_server, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=source_environment(),
        )
        case.addCleanup(self._end)

    def judge(self, author: str, spf: str, dkim: Sequence[str]) -> str:
        """The word for a message: ``pass``, ``no policy``, or the policy for one that failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([author, spf, [*dkim]]), file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()


def _library(name_server: str, suffixes: str) -> ctypes.CDLL:
    library = ctypes.CDLL(LIBRARY)
    library.opendmarc_policy_connect_init.restype = ctypes.c_void_p
    host, _, port = name_server.rpartition(":")
    settings = _Settings(tld_type=_MOZILLA, tld_source_file=suffixes.encode(), nscount=1)
    settings.nsaddr_list[0].family = socket.AF_INET
    settings.nsaddr_list[0].port = socket.htons(int(port))
    settings.nsaddr_list[0].address = (ctypes.c_ubyte * 4)(*socket.inet_aton(host))
    assert library.opendmarc_policy_library_init(ctypes.byref(settings)) == 0
    library.settings = settings  # which it goes on to read
    return library


def _judged(library: ctypes.CDLL, author: str, spf: str, dkim: Sequence[str]) -> str:
    context = ctypes.c_void_p(library.opendmarc_policy_connect_init(b"192.0.2.1", _IPV4))
    library.opendmarc_policy_store_from_domain(context, author.encode())
    outcome = _PASSED if spf else _FAILED
    domain = (spf or "nobody.invalid").encode()
    library.opendmarc_policy_store_spf(context, domain, outcome, _MAIL_FROM, None)
    for each in dkim:
        library.opendmarc_policy_store_dkim(context, each.encode(), b"s", _PASSED, None)
    found = library.opendmarc_policy_query_dmarc(context, author.encode())
    word = "no policy"  # no record, or one that it can't read
    if found == 0:
        word = WORDS[library.opendmarc_get_policy_to_enforce(context)]
    library.opendmarc_policy_connect_shutdown(context)
    return word


if __name__ == "__main__":
    _loaded = _library(*sys.argv[1:])
    for line in sys.stdin:
        print(_judged(_loaded, *json.loads(line)), flush=True)
