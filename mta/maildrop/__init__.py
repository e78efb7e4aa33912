"""The maildrop, for local users who may not write to the spool.

Every user may put a file there.  Only the server may list the files, and read those of others.
`batch` is the form of such a file, `drop` leaves one, `pickup` takes them into the spool, also
those that came while the server was down.  `published` is what such users must know.
"""
