"""Systems in a folder of their own, to install into."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mta.installation.answers import Answers, Role, present_settings
from mta.installation.host import Host
from mta.installation.places import Places
from mta.installation.plan import Plan
from mta.installation.roles import Installation
from mta.installation.wishes import Wishes
from mta.smtp import sasl
from tests.processes import need_program, temporary_folder

ANSWERS = Answers("mail.example.com", ["example.com"], ["alice", "bob"])
PROGRAM = Path("/opt/mta/bin")


class System:
    """A folder with the files of a system that name its users."""

    def __init__(self, case: SynchronousTestCase, *, has_user: bool = False) -> None:
        self.root = temporary_folder(case)
        case.patch(sasl, "ITERATIONS", 4096)  # passwords are hashed faster
        etc = self.root / "etc"
        etc.mkdir()
        user, group = ("mta:x:987:986::/:/bin/false\n", "mta:x:986:\n") if has_user else ("", "")
        (etc / "passwd").write_text(f"root:x:0:0:root:/root:/bin/bash\n{user}")
        (etc / "group").write_text(f"root:x:0:\ndovecot:x:985:\n{group}")
        for name in ("shadow", "gshadow"):
            (etc / name).write_text("root:*:::\n" if name == "gshadow" else "root:*:1::::::\n")
        if not has_user and os.geteuid() == 0:
            need_program(case, "useradd")
        self.host = Host(self.root / "proc")  # of which there is none: no IPv6, no sockets

    @property
    def places(self) -> Places:
        """The paths of an installation there."""
        return Places.of_system(PROGRAM, self.root)

    def plan(self, role: Role, answers: Answers = ANSWERS, wishes: Wishes | None = None) -> Plan:
        """The plan of an installation there."""
        present = present_settings(self.file("/etc/mta/mta.yaml"))
        wished = wishes or Wishes()
        return Installation(role, answers, self.places, wished, self.host, present).plan()

    def install(self, role: Role, answers: Answers = ANSWERS, **wishes: object) -> list[str]:
        """Install; returns the lines that are said."""
        plan = self.plan(role, answers, Wishes(**wishes))  # type: ignore[arg-type]
        return list(plan.apply())

    def file(self, path: str) -> Path:
        """A file of that system."""
        return self.root / path.removeprefix("/")

    def snapshot(self) -> dict[str, tuple[int, int, int, int]]:
        """All that is there: mode, owner, group and time of the last change."""
        return {
            str(path.relative_to(self.root)): (
                *(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns),
            )
            for path in self.root.rglob("*")
            for status in [path.lstat()]
        }
