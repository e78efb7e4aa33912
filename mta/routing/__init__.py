"""The way from forward-path to hop: domains, aliases, routes.

See RFC 5321 sections 3.5, 3.9 and 5.  It is asked at RCPT time and again at each delivery, and
never stored, so that a corrected configuration applies to mail that is queued already.

`router` is what the other rooms ask, `expansion` finds the steps behind an address, `domains` has
the rules for names in a domain of ours.
"""

from mta.routing.expansion import MAX_ADDRESSES, MAX_ALIASES, Step
from mta.routing.router import Router

__all__ = ["MAX_ADDRESSES", "MAX_ALIASES", "Router", "Step"]
