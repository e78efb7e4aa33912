"""The part of the configuration that deliveries go by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mta.interfaces import IDeliveryAgent, IFailureWatch, IHeldMailWatch, INotices, IRouter
from mta.mail import Agent
from mta.settings import Peer, Queue


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """A frozen value that a reload replaces whole.

    `held_mail_watch` hears for which peers mail is held, `failure_watch` which mail is refused.
    """

    router: IRouter
    agents: Mapping[Agent, IDeliveryAgent]
    notices: INotices
    settings: Queue
    peers: Mapping[str, Peer]
    held_mail_watch: IHeldMailWatch
    failure_watch: IFailureWatch | None = None
