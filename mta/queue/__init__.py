"""The queue: works off what waits in the spool.

`runner` takes each message from its 250 to its last outcome.  `leases` gives it what is due,
`active_queue` makes one attempt for each message: `planning` routes it, `destinations` hand
the deliveries to the agents, `held_sources` to turned connections.  `attempt` says what the
outcomes mean, `recorder` writes that into the spool, `backlog` remembers what a crowded hop could
not take.
"""
