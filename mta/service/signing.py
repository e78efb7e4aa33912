"""The signer of mail that leaves, where domains have keys."""

from __future__ import annotations

import time
from functools import partial

from twisted.internet.threads import deferToThreadPool

from mta.interfaces import ISigner
from mta.service.process import Process
from mta.settings import Settings
from mta.signing.key_ring import KeyRing
from mta.signing.origins import Origins
from mta.signing.signer import Signer


def signer(settings: Settings, process: Process) -> ISigner | None:
    """Return what signs mail that leaves, where a domain has keys."""
    keys = {
        name: domain.signing_keys
        for name, domain in settings.domains.items()
        if domain.signing_keys
    }
    if not keys:
        return None
    in_thread = partial(deferToThreadPool, process.reactor, process.threads)
    return Signer(
        Origins(settings),
        KeyRing(keys, in_thread, process.reactor),
        in_thread,
        process.reactor,
        time.time,
        settings.signature_lifetime,
    )
