"""Checks of a whole installation: files, names, ports, peers, machine.

`examination` runs the table of checks and gives each its time; `examined` is what they look at, and
`probe` how they reach other hosts.  `result` is what a check says.  Each other module has the
checks of one subject, and `records` the DNS records that a domain of ours needs.
"""
