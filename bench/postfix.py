"""A Postfix tuned as its documentation says."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from bench.servers import DOMAIN, SBIN, Server, free_port

_MAIN = """\
compatibility_level = 3.6
config_directory = {folder}/etc
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
myhostname = postfix.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtp_dns_support_level = disabled
virtual_mailbox_domains = {domain}
virtual_mailbox_maps = static:inbox/
virtual_mailbox_base = {folder}/mail
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
relayhost = {next_hop}
"""

# The system's services less what is not needed here; none in a chroot.
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


# STRESS_README, TUNING_README: processes for all sessions, no pauses, no look-ups.
_TUNED: Mapping[str, str] = {
    "default_process_limit": "1200",
    "in_flow_delay": "0",
    "smtpd_recipient_restrictions": "",
    "smtp_tls_security_level": "none",
    "smtpd_tls_security_level": "may",
    "smtpd_tls_loglevel": "0",
    "virtual_mailbox_limit": "0",
    "message_size_limit": "52428800",
}
NOTHING: Mapping[str, str] = MappingProxyType({})


class Postfix(Server):
    """An instance of its own; the system's is not touched.

    `next_hop`: ``[host]:port`` for mail to other domains; `settings`: more of main.cf.
    """

    name = "Postfix"

    def __init__(
        self, folder: Path, next_hop: str = "", settings: Mapping[str, str] = NOTHING
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.new = folder / "mail" / "inbox" / "new"
        self.port = free_port()
        pair = {"smtpd_tls_chain_files": f"{folder}/etc/pair.pem"}
        lay_out(folder, self.port, DOMAIN, next_hop, {**_TUNED, **pair, **settings})
        _make_certificate(folder / "etc")
        program = shutil.which("postfix", path=SBIN)
        assert program
        self._command = [program, "-c", str(folder / "etc")]
        super().__init__([*self._command, "start-fg"], folder)
        self._wait_for("daemon started", folder / "mail.log")

    def stop(self) -> None:
        """End it: what we started is only a script around it."""
        subprocess.run([*self._command, "stop"], stderr=subprocess.DEVNULL, check=False)
        super().stop()


def lay_out(
    folder: Path, port: int, domain: str, next_hop: str, settings: Mapping[str, str]
) -> None:
    """Make the folders and the configuration of an instance that listens on that port.

    Mail for `domain` ends in the Maildir ``mail/inbox``, all other at `next_hop`.  `settings` of
    main.cf come after ours.
    """
    reader = pwd.getpwnam("nobody")
    for name in ("etc", "queue", "data", "mail"):
        (folder / name).mkdir()
    os.chown(folder / "mail", reader.pw_uid, reader.pw_gid)
    os.chown(folder / "data", pwd.getpwnam("postfix").pw_uid, -1)
    uid, gid = reader.pw_uid, reader.pw_gid
    main = _MAIN.format(folder=folder, domain=domain, next_hop=next_hop, uid=uid, gid=gid)
    main += "".join(f"{name} = {value}\n" for name, value in settings.items())
    (folder / "etc" / "main.cf").write_text(main)
    (folder / "etc" / "master.cf").write_text(_MASTER.format(port=port))


def _make_certificate(folder: Path) -> None:
    """A pair as this program makes itself one: P-256."""
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-x509")
    names = ("-subj", "/CN=postfix.example", "-keyout", "key.pem", "-out", "certificate.pem")
    openssl = shutil.which("openssl")
    assert openssl
    subprocess.run(
        [openssl, "req", *kind, *names], cwd=folder, stderr=subprocess.DEVNULL, check=True
    )
    pair = (folder / "key.pem").read_text() + (folder / "certificate.pem").read_text()
    (folder / "pair.pem").write_text(pair)


def missing_for_postfix() -> str:
    """Why Postfix can't be measured here; empty where it can."""
    if not shutil.which("postfix", path=SBIN):
        return "Postfix is not installed"
    return "" if os.geteuid() == 0 else "Postfix can only be started by root"
