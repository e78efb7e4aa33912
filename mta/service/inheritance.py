"""The settings and sockets that a worker has from the first process.

They come in an environment variable.
The configuration file may have changed since, without a reload: a worker that went by the file
alone would serve one port as another, or work with another spool.
"""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from mta.settings import Listener, ListenerTLS, Service, Settings

VARIABLE = "MTA_WORKER"  # in the environment of workers alone


@dataclass(frozen=True, slots=True)
class Inheritance:
    """The listeners, their descriptors, and settings that take a restart."""

    descriptors: Sequence[int]
    listen: Sequence[Listener]
    spool: str
    workers: int
    database: str = field(default="", repr=False)
    node: str = ""

    @classmethod
    def of(cls, settings: Settings, descriptors: Sequence[int]) -> Inheritance:
        """The inheritance of workers from a process with these settings."""
        return cls(
            descriptors,
            settings.listen,
            settings.spool,
            settings.queue.workers,
            settings.database,
            settings.node,
        )

    def encoded(self) -> str:
        """The text for the environment."""
        listen = [
            asdict(each) | {"service": each.service.value, "tls": each.tls.value}
            for each in self.listen
        ]
        place = self.spool, self.workers, self.database, self.node
        return json.dumps([list(self.descriptors), listen, *place])

    @classmethod
    def decoded(cls, text: str) -> Inheritance:
        """Read the text that `encoded` wrote."""
        descriptors, listen, *place = json.loads(text)
        listeners = [
            Listener(
                **each | {"service": Service(each["service"]), "tls": ListenerTLS(each["tls"])}
            )
            for each in listen
        ]
        return cls(descriptors, listeners, *place)

    def in_force(self, settings: Settings) -> Settings:
        """The settings of the file, but for those that take a restart."""
        return replace(
            settings,
            spool=self.spool,
            database=self.database,
            node=self.node,
            listen=tuple(self.listen),
            queue=replace(settings.queue, workers=self.workers),
        )


def inherited(environment: MutableMapping[str, str] = os.environ) -> Inheritance | None:
    """Take the inheritance of this process; None: it is the first one."""
    value = environment.pop(VARIABLE, "")
    return Inheritance.decoded(value) if value else None
