"""The hosts that we change roles with, once the access has let them or we have dialled them.

`provider` is our side where a peer dials in: it is sent its mail on the connection that it
turned, or on one of ours (ETRN).  `customer` is our side where we dial: `exchange` is one
exchange, `keeper` repeats them.  `tally` counts what went over a connection.
"""
