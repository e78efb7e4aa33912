"""Who may do what in a session: connections, log-ins, reverse-paths, relaying.

`policy` holds the rules, `limits` the counters behind them, `hosts` says what one host is.
"""

from mta.gate.policy import Gate

__all__ = ["Gate"]
