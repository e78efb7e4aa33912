"""The access policy: connections, log-ins, reverse-paths, relaying, turns.

`policy` has the rules for mail, `admission` those for connections, `logins` those for failed
log-ins, `turning` those for TURN, ATRN and ETRN.  `counters` are the counts behind them, which
outlive a configuration, made of `limits` and `bans`, which `log_in_file` shares with other
processes.  `hosts` has the addresses of clients, `local` the names that programs of this host use.
"""

from mta.access.policy import AccessPolicy

__all__ = ["AccessPolicy"]
