"""The unit of the server, run by systemd: what it takes away, and that nothing is missed."""

from __future__ import annotations

import json
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mta.installation.places import Places
from mta.installation.systemd import system_unit
from tests.installation.booted import PROGRAM, PYTHON, BootedSystem
from tests.installation.restrictions import CANARY, LINES

# What the unit says besides what it takes away; and what it says of IPC, which shows at its end.
OTHERS = {
    *("Type", "User", "Group", "ExecStart", "ExecStopPost", "ExecReload", "WatchdogSec", "Restart"),
    *("RestartSec", "TimeoutStartSec", "TimeoutStopSec", "LimitNOFILE", "WorkingDirectory"),
    *("StateDirectory", "RuntimeDirectory", "LogsDirectory", "RemoveIPC"),
}
# Of a process under it, as /proc shows them.
CONFINED = ("CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2")
TROUBLE = re.compile("Traceback|not permitted|Read-only|Permission denied", re.IGNORECASE)

# All that the server does which a unit may keep it from, done there by root.
_PROGRAM = """
import smtplib, ssl, subprocess, sys, time
from pathlib import Path
from mta.commands import main
from mta.config import edited, save
from mta.installation import proof
from mta.users.file import UserFile

def systemctl(*words):
    return subprocess.check_output(["systemctl", *words], text=True)

def prove():
    proof.send(25, "mail.example.com", "alice@example.com", alice)

def wait_for(path, text=""):
    end = time.monotonic() + 60
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < end, (path, text)
        time.sleep(0.05)

def restart():
    if log.exists():
        log.rename(f"{log}.{time.time_ns()}")
    systemctl("restart", "mta")
    wait_for(log, "worker ready")

options = ("--yes", "--offline", "--program", sys.argv[1])
alice, log = Path("/var/mail/example.com/alice"), Path("/var/log/mta/mta.log")
first = ("--hostname", "mail.example.com", "--mailbox", "alice", "--log-file", str(log))
assert main(["init", "server", *options, *first]) == 0
kept = Path("/var/mail/example.com/kept")
command = Path("/opt/mta/bin/keep")
command.write_text(f"#!/bin/sh\\ncat /proc/self/status > {kept}.new && mv {kept}.new {kept}\\n")
command.chmod(0o755)
UserFile(Path("/etc/mta/users.yaml")).add("bob", "wonderland", ["bob@example.com"])
config = Path("/etc/mta/mta.yaml")
pipe = {"deliver": f"pipe:{command}", "mailboxes": "any"}
save(config, edited(config, {("domains", "pipe.example"): pipe, ("queue", "workers"): 2}))
restart()
prove()
context = ssl._create_unverified_context()
with smtplib.SMTP_SSL("127.0.0.1", 465, context=context) as client:
    client.login("bob", "wonderland")
    client.sendmail("bob@example.com", "x@pipe.example", "From: bob@example.com\\r\\n\\r\\nhello")
wait_for(kept)
systemctl("reload", "mta")
wait_for(log, "read again")
prove()
log.rename(f"{log}.rotated")
systemctl("kill", "--kill-whom=main", "--signal=USR1", "mta")
wait_for(log)
prove()
restart()
prove()
main_pid = systemctl("show", "--property=MainPID", "--value", "mta").strip()
group = Path(f"/proc/{main_pid}/cgroup").read_text().strip().partition("::")[2]
for pid in Path(f"/sys/fs/cgroup{group}/cgroup.procs").read_text().split():
    if pid != "0":  # a process of another system that was booted beside this one
        print("process", pid, Path(f"/proc/{pid}/status").read_text())
print("process of a filter", kept.read_text())
systemctl("stop", "mta")
print(systemctl("show", "--property=NRestarts,Result", "mta"))
print("log", *[path.read_text() for path in log.parent.iterdir()])
"""


class LineTests(SynchronousTestCase):
    """Each line that takes something away, tried by a process under the unit."""

    def setUp(self) -> None:
        self.system = BootedSystem(self)
        self.system.run("useradd", "--system", "--user-group", "mta")
        self.system.run("install", "-d", "-o", "mta", "/var/spool/mta", "/var/mail")
        self.system.path(CANARY).touch()
        self.names = self.system.run("readlink", "/proc/1/ns/uts").strip()
        self.unit = system_unit(Places.of_system(Path(PROGRAM)))

    def holds(self, *lines: str) -> dict[str, bool]:
        """The lines that hold for a process which systemd starts with these."""
        script = f"/opt/source/tests/installation/restrictions.py {self.names}"
        text = "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nUser=mta\nGroup=mta\n"
        text += f"ExecStart={PYTHON} {script}\nStandardOutput=truncate:/tried\n"
        self.system.path("/etc/systemd/system/tried.service").write_text(text + "\n".join(lines))
        self.system.run("systemctl", "daemon-reload")
        self.system.run("systemctl", "start", "tried")
        found: dict[str, bool] = json.loads(self.system.path("/tried").read_text())
        return found

    def test_each_line(self) -> None:
        """All of them hold, and none does without the unit."""
        lines = re.findall(r"^([A-Z]\w+)=.*$", self.unit.partition("[Service]")[2], re.MULTILINE)
        tried = {line for line in lines if line not in {*OTHERS, "WantedBy"}}
        self.assertEqual(tried, {*LINES})
        folders = ("StateDirectory=mta", "RuntimeDirectory=mta", "LogsDirectory=mta")
        bare = self.holds(*folders)
        self.assertEqual([name for name, does in bare.items() if does], [])
        text = self.unit.partition("[Service]")[2].partition("[Install]")[0]
        whole = self.holds(
            *folders, *(line for line in text.splitlines() if line.partition("=")[0] in LINES)
        )
        self.assertEqual([name for name, does in whole.items() if not does], [])


class ServerTests(SynchronousTestCase):
    """The server under its unit."""

    def test_all_that_it_does(self) -> None:
        """Ports, workers, log-ins, Maildirs, filters, reload, log and restart work there."""
        system = BootedSystem(self)
        said = system.run(PYTHON, "-c", _PROGRAM, PROGRAM)
        processes = said.split("process ")[1:]
        self.assertEqual(len(processes), 3, said)  # two workers, and the filter
        for process in processes:
            for line in CONFINED:
                self.assertIn(line, process)
            self.assertNotRegex(process, r"Uid:.*\b0\b")
        self.assertIn("NRestarts=0", said)
        self.assertIn("Result=success", said)
        self.assertNotRegex(said.rpartition("\nlog ")[2], TROUBLE)
