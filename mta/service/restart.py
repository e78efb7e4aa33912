"""The settings that take a restart, and a reload leaves alone."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace

from mta.settings import Listener, Settings

# The keys whose change takes a restart, as `docs/config.rst` has them; all others apply at once.
# The process opens and binds these before it gives up the rights to do so.
NEED_RESTART = ("spool", "run_as", "listen[].endpoint", "metrics", "queue.workers")


def in_force(new: Settings, old: Settings) -> tuple[Settings, Sequence[str]]:
    """The settings after a reload, and the keys that need a restart.

    Those are the keys whose value has changed in the file.
    """
    changed = [
        new.spool != old.spool,
        new.run_as != old.run_as,
        _endpoints(new) != _endpoints(old),
        new.metrics != old.metrics,
        new.queue.workers != old.queue.workers,
    ]
    settings = replace(
        new,
        spool=old.spool,
        run_as=old.run_as,
        listen=_served(new.listen, old.listen),
        metrics=old.metrics,
        queue=replace(new.queue, workers=old.queue.workers),
    )
    keys = [key for key, is_changed in zip(NEED_RESTART, changed, strict=True) if is_changed]
    return settings, keys


def _endpoints(settings: Settings) -> Counter[str]:
    return Counter(listener.endpoint for listener in settings.listen)


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
