"""Routing: from a forward-path to final addresses and their hops.

RFC 5321 sections 3.5, 3.9 and 5.  The router is asked at RCPT time and again at each delivery, and
its answers are not stored: a corrected configuration applies to mail that is queued already.
"""

from mta.routing.expansion import MAX_ADDRESSES, MAX_ALIASES, RoutingStep
from mta.routing.router import Router

__all__ = ["MAX_ADDRESSES", "MAX_ALIASES", "Router", "RoutingStep"]
