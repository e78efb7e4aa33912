"""Who may do what in a session: connections, log-ins, reverse-paths, relaying.

`policy` holds the rules, `logins` those about failed log-ins, `turning` those about changing roles.
`counters` are the counts behind them, which outlive a configuration, made of `limits` and `bans`.
`hosts` says what one host is, `local` what this host's own programs call it.
"""

from mta.access.policy import AccessPolicy

__all__ = ["AccessPolicy"]
