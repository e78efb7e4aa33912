"""The users: log-ins, and the addresses that they may write from.

`file` keeps users in a file of our own, `local` is the server's view of that file, `dovecot`
asks a Dovecot server instead, so that one user base serves IMAP and SMTP.
"""

from mta.users.dovecot import DovecotUsers
from mta.users.file import Roster, User, UserFault, UserFile
from mta.users.local import Users

__all__ = ["DovecotUsers", "Roster", "User", "UserFault", "UserFile", "Users"]
