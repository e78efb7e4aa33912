"""The effect of a reload on each setting."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from operator import attrgetter

from mta.settings import Listener, Settings


class Effect(Enum):
    """The time from which a changed setting applies."""

    AT_ONCE = "at once"
    NEXT_MESSAGE = "from the next message on"
    NEXT_CONNECTION = "from the next connection on"
    NEXT_ATTEMPT = "from the next attempt on"
    NEXT_START = "at the next start"


# Every setting, or the section that it is in; the longer key counts.  What applies at the next
# start is opened, or given up, while we have rights that a running server has not.
EFFECTS: Mapping[str, Effect] = {
    "hostname": Effect.NEXT_CONNECTION,
    "spool": Effect.NEXT_START,
    "database": Effect.NEXT_START,
    "node": Effect.NEXT_START,
    "run_as": Effect.NEXT_START,
    "listen": Effect.NEXT_CONNECTION,
    "listen[].endpoint": Effect.NEXT_START,
    "tls": Effect.NEXT_CONNECTION,
    "resolver": Effect.NEXT_ATTEMPT,
    "own_addresses": Effect.NEXT_CONNECTION,
    "domains": Effect.NEXT_CONNECTION,
    "routes": Effect.NEXT_ATTEMPT,
    "default_route": Effect.NEXT_ATTEMPT,
    "senders": Effect.NEXT_ATTEMPT,
    "relay": Effect.NEXT_CONNECTION,
    "signature_lifetime": Effect.NEXT_CONNECTION,
    "authentication": Effect.NEXT_CONNECTION,
    "submission": Effect.NEXT_CONNECTION,
    "users": Effect.NEXT_CONNECTION,
    "peers": Effect.AT_ONCE,
    "metrics": Effect.NEXT_START,
    "queue": Effect.NEXT_ATTEMPT,
    "queue.workers": Effect.NEXT_START,
    "milters": Effect.NEXT_CONNECTION,
    "limits": Effect.NEXT_CONNECTION,
    "limits.free_space": Effect.NEXT_MESSAGE,
    "block_lists": Effect.NEXT_CONNECTION,
    "allow_lists": Effect.NEXT_CONNECTION,
    "greylist": Effect.NEXT_CONNECTION,
    "log": Effect.AT_ONCE,
}


def effect_of(key: str) -> Effect:
    """The effect on one setting, such as ``queue.workers``."""
    return EFFECTS[max((each for each in EFFECTS if key.startswith(each)), key=len)]


def in_force(new: Settings, old: Settings) -> tuple[Settings, Sequence[str]]:
    """The settings after a reload, and the keys that need a restart.

    Those are the keys whose value has changed in the file.
    """
    settings = replace(
        new,
        spool=old.spool,
        database=old.database,
        node=old.node,
        run_as=old.run_as,
        listen=_served(new.listen, old.listen),
        metrics=old.metrics,
        queue=replace(new.queue, workers=old.queue.workers),
    )
    kept = [key for key, effect in EFFECTS.items() if effect is Effect.NEXT_START]
    return settings, [key for key in kept if _value(key, new) != _value(key, old)]


def _value(key: str, settings: Settings) -> object:
    if key == "listen[].endpoint":
        return Counter(listener.endpoint for listener in settings.listen)
    return attrgetter(key)(settings)


def _served(new: Sequence[Listener], old: Sequence[Listener]) -> tuple[Listener, ...]:
    """The open listeners, in their order, each as it is now configured.

    One that is no longer configured stays as it was.
    """
    by_endpoint: defaultdict[str, deque[Listener]] = defaultdict(deque)
    for listener in new:
        by_endpoint[listener.endpoint].append(listener)
    return tuple(
        by_endpoint[listener.endpoint].popleft() if by_endpoint[listener.endpoint] else listener
        for listener in old
    )
