"""Filters that speak the milter protocol, such as rspamd, ClamAV's and OpenDKIM.

`inspector` is the door: an inspector of mail for each filter, with a connection to it for each
session.  `message` tells it one message as it comes, `ending` takes the changes and the verdict.
`filter` holds the conversation over a `connection` that `connector` makes; `negotiation` is its
beginning, `events` and `macros` are what it is told, `replies` and `changes` what it answers, in
`packets`.  `surroundings` is what all of them share.
"""

from mta.milters.inspector import MilterInspector
from mta.milters.surroundings import CHAIN_SECONDS, PASSING_CHAIN_SECONDS, Surroundings

__all__ = ["CHAIN_SECONDS", "PASSING_CHAIN_SECONDS", "MilterInspector", "Surroundings"]
