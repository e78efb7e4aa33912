"""Delivery status notifications: what became of a message, told to its sender.

Peers' replies, addresses and header sections may contain anything: each is cleaned where it enters
a notice.
"""

from mta.notices.report import POSTMASTER
from mta.notices.returned import MAX_CONTENT
from mta.notices.writer import NoticeWriter

__all__ = ["MAX_CONTENT", "POSTMASTER", "NoticeWriter"]
