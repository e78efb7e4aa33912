"""Installing: ``mta init`` makes a fresh machine a mail server.

What is done is a plan: a list of changes.  A change knows its present state, shows its difference
and applies itself; so a plan can be shown before it is carried out, and carrying it out twice does
nothing the second time.  `roles` makes the plan of a role from `answers`, `places` and `host`.
"""
