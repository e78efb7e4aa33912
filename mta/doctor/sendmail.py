"""The trial of ``mta sendmail`` by a user without rights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mta.doctor.result import Result, bad, ok, unknown
from mta.privileges import ROOT, Account, PrivilegeFault, account_named

USER = "nobody"  # as cron jobs of little programs have it
TRIAL_TIMEOUT = 40.0  # seconds: a server that stands still has 30 for its greeting
_CODE = "import sys; from mta.commands.sendmail import main; sys.exit(main())"


def trial(config: Path, interpreter: str = sys.executable) -> Result:
    """Let a user without rights try to hand in a message.

    It ends before anything would be stored.  Blocks.  Only root can.
    """
    if os.geteuid() != ROOT:
        return unknown(f"whether {USER} can send mail, only root can try", "sudo mta doctor")
    try:
        account = account_named(USER)
    except PrivilegeFault as fault:
        return unknown(str(fault))
    command = [interpreter, "-c", _CODE, "-bv", "-C", str(config.absolute())]
    try:
        ended = _run(command, account)
    except PermissionError:
        return bad(
            f"{USER} can't run {interpreter}: no program of other users can send mail",
            "install into a folder that all users may enter, such as /opt/mta",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return unknown(f"mta sendmail as {USER}: {error}")
    said = (ended.stdout + ended.stderr).strip().splitlines() or [f"status {ended.returncode}"]
    if ended.returncode:
        return bad(f"mta sendmail as {USER}: {said[-1]}", "cron jobs and programs send mail so")
    return ok(f"mta sendmail as {USER}: {said[-1]}")


def _run(command: Sequence[str], account: Account) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own program
        command,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TRIAL_TIMEOUT,
        check=False,
    )
