"""Where users of this host leave mail who may not write to the spool: a folder in it.

Anybody may put a file there, and nobody but the server may list or read what others put there.
`batch` is the form of such a file, `drop` leaves one, `pickup` takes them into the spool, also
those that came while the server was down.  `published` is what such users must know.
"""
