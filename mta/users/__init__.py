"""Users, their passwords, and the addresses that they may write as.

`file` keeps users in a file of our own (`roster`: what they are, `form`: how they are written),
`local` is the server's view of that file.  `dovecot` asks a Dovecot server instead, so that one
user base serves IMAP and SMTP.
"""
