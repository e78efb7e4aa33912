"""The queue: works off what waits in the spool.

`runner` takes each message from its 250 to its last outcome: it routes, groups by hop, and
records every round of attempts in one commit.  `destinations` shares the connections among the
hops and leaves dead ones alone for a while; `window` and `turns` see to it that no hop and no
sender keeps the others waiting.  `rounds` and `schedule` decide, purely, what an
attempt changed and when the next one comes.  `held` hands out the mail that waits for a peer to
turn a connection.
"""
