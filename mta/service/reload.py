"""What a reload does with each setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mta.settings import Listener, Settings

# The keys whose change takes a restart, as `docs/config.rst` has them; all others count at once.
# The process opens and binds these before it gives up the rights to do so.
NEED_RESTART = ("spool", "listen[].endpoint", "metrics", "queue.workers")


def in_force(new: Settings, old: Settings) -> tuple[Settings, Sequence[str]]:
    """The new settings, but for those that take a restart; and the keys of these, where changed."""
    listeners = {listener.endpoint: listener for listener in new.listen}
    is_same = listeners.keys() == {listener.endpoint for listener in old.listen}
    changed = [
        new.spool != old.spool,
        not (is_same and len(new.listen) == len(old.listen)),
        new.metrics != old.metrics,
        new.queue.workers != old.queue.workers,
    ]
    settings = replace(
        new,
        spool=old.spool,
        # Those that are open keep their order, and are served as they are now configured.
        listen=tuple(_successor(listener, listeners) for listener in old.listen),
        metrics=old.metrics,
        queue=replace(new.queue, workers=old.queue.workers),
    )
    return settings, [
        key for key, is_changed in zip(NEED_RESTART, changed, strict=True) if is_changed
    ]


def _successor(old: Listener, listeners: dict[str, Listener]) -> Listener:
    return listeners.get(old.endpoint, old)
