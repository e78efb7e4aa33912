"""Seams of the inspectors."""

from __future__ import annotations

from zope.interface import Interface

from mta.authentication.decision import Decision
from mta.authentication.judged import Judged


class IJudgedMail(Interface):
    """Hears what was found out about each message from outside."""

    def judged(judged: Judged, decision: Decision) -> None:
        """Take note of a message, whose content has come as a whole."""
