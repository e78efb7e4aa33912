"""The hosts that we change roles with, once the gate has let them or we have dialled them.

`handover` sends a peer its mail on the connection that it turned, `exchange` is the other end of
that: one exchange with a peer that we dial.  `keeper` repeats exchanges, `record` keeps what
became of them, for people.
"""
