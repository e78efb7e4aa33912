"""The peers: hosts that we change roles with.

`provider` is our side where a peer dials in: `turned_sender` sends it its mail on the connection
that it turned, or the relay does on one of ours (ETRN).  `customer` is our side where we dial:
`exchange` is one exchange, `dial_loop` repeats them.  `held` is the mail that waits for peers,
`tally` counts what went over a connection, `status_log` keeps what became of it, and `counts` what
peers do.
"""
