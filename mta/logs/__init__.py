"""The log: one line for each event, as text or as JSON.

`writer` is the server's, `file` what it writes to, and `note` there what the command line logs
with.  `lines` are the forms of an event, `entries` reads them again.
"""
