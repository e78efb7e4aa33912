"""A Dovecot of our own that only says who may log in."""

from __future__ import annotations

import grp
import os
import pwd

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import Process, need_program, temporary_folder, wait_until

_CONFIGURATION = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
protocols =
ssl = no
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = {folder}/passwd
}}
service auth {{
  chroot =
  unix_listener {folder}/auth {{
    mode = 0666
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
"""


class Dovecot:
    """Knows alice, whose secret is wonderland; `socket` is where it is asked."""

    def __init__(self, case: SynchronousTestCase, mechanisms: str) -> None:
        program = need_program(case, "dovecot")
        folder = temporary_folder(case)
        account = pwd.getpwuid(os.getuid())
        group = grp.getgrgid(os.getgid()).gr_name
        (folder / "passwd").write_text("alice:{PLAIN}wonderland\n")
        (folder / "dovecot.conf").write_text(
            _CONFIGURATION.format(
                folder=folder, user=account.pw_name, group=group, mechanisms=mechanisms
            )
        )
        process = Process([program, "-F", "-c", str(folder / "dovecot.conf")], folder)
        case.addCleanup(process.kill)
        self.socket = folder / "auth"
        wait_until(self.socket.exists, "Dovecot's socket")
