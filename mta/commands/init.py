"""``mta init``: makes this machine a mail server, and proves it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mta.commands.console import Failed, is_file, printable
from mta.commands.terminal import Paint, painter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mta.commands.console import Subparsers
    from mta.commands.surroundings import Surroundings
    from mta.installation.answers import Answers, Role
    from mta.installation.places import Places
    from mta.installation.roles import Installation
    from mta.installation.wishes import Wishes
    from mta.settings import Settings

ROOT = 0  # user id
DOCTOR = "import sys; from mta.commands import main; sys.exit(main())"
DEMO_FOLDER = Path("mta-demo")

ROLES = {
    "vps": "the machine with a public address that relays for offices behind NAT",
    "office": "the machine behind NAT, with the mailboxes; `mta pair` connects it to its vps",
    "server": "one ordinary mail server with a public address, and the mailboxes on it",
    "demo": "a server to play with, in a folder, that sends nothing to the outside",
}
_PAINTS = {"+": "green", "-": "red", "@": "blue"}


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    summary = "make this machine a mail server: users, folders, configuration, unit"
    parser = subparsers.add_parser("init", help=summary, description=f"{summary.capitalize()}.")
    parser.set_defaults(run=_explain)
    group = parser.add_subparsers(title="roles", metavar="ROLE")
    for name, text in ROLES.items():
        role = group.add_parser(name, help=text, description=f"{text.capitalize()}.")
        role.set_defaults(run=_run, role=name)
        _add_options(role, name)


def _add_options(parser: argparse.ArgumentParser, role: str) -> None:
    add = parser.add_argument
    add("--yes", "-y", action="store_true", help="ask nothing: take the defaults, and apply")
    add("--dry-run", "-n", action="store_true", help="show what would be done, and change nothing")
    add("--replace", action="store_true", help="replace files that you have changed, too")
    if role == "demo":
        is_file(
            add("folder", nargs="?", type=Path, default=DEMO_FOLDER, help="(default: mta-demo)")
        )
        return
    add("--hostname", metavar="NAME", help="the full name of this host")
    add("--domain", action="append", metavar="D", help="a domain whose mail ends here")
    add("--mailbox", action="append", metavar="NAME", help="a mailbox, and a user who logs in")
    add("--deliver", default="", metavar="HOP", help="where the domains' mail goes instead")
    add("--log-file", default="", metavar="FILE", help="log there, with logrotate")
    add("--offline", action="store_true", help="ask nothing of the network")
    add("--sendmail", action="store_true", help="link /usr/sbin/sendmail to mta-sendmail")
    add("--dovecot", action=argparse.BooleanOptionalAction, help="set up Dovecot beside it")
    add("--no-start", action="store_true", help="leave the start of the server to you")
    is_file(add("--root", type=Path, metavar="DIR", help="the system to install in, if not this"))
    is_file(add("--program", type=Path, metavar="DIR", help="where the installed programs are"))


def _explain(arguments: argparse.Namespace) -> None:
    for name, text in ROLES.items():
        print(f"mta init {name:7} {text}")
    print("\nIt asks a few questions, shows what it will do, and changes nothing before you agree.")


def _run(arguments: argparse.Namespace) -> None:
    from mta.installation.answers import WrongAnswer
    from mta.installation.interfaces import ChangeFailed

    try:
        _install(arguments)
    except (ChangeFailed, WrongAnswer) as fault:
        raise Failed(str(fault)) from None


def _install(arguments: argparse.Namespace) -> None:
    from mta.commands.questions import answers_for
    from mta.installation.answers import Role, present_settings
    from mta.installation.host import Host
    from mta.installation.roles import Installation

    places, role = _places(arguments), Role(arguments.role)
    present = present_settings(places.now(places.config))
    places = places.used_by(present)
    around = _surroundings(arguments, role, places, present)
    answers = answers_for(role, arguments, present, filter(None, around.names.values()))
    installation = Installation(role, answers, places, _wishes(arguments), Host(), present)
    installation.configuration.settings()  # whose faults are better known before
    plan = installation.plan()
    paint = painter()
    for line in (*plan.remarks, *_names(around.names, answers.hostname), *plan.kept()):
        if line not in around.remarks:  # which were said before the questions
            print(paint("note:", "yellow"), printable(line))
    needed = plan.needed()
    if not needed:
        print("nothing to do: all is as it should be")
    else:
        _show([line for change in needed for line in change.difference()], paint)
    if arguments.dry_run:
        print("this was a dry run: nothing is changed")
        return
    if needed:
        _agree(arguments, len(needed))
        for line in plan.apply():
            print(
                paint("done:", "green"), printable(line), flush=True
            )  # a password is in none else
    _finish(arguments, installation, is_new=bool(needed))


def _places(arguments: argparse.Namespace) -> Places:
    from mta.installation.places import SYSTEM_ROOT, Places
    from mta.installation.roles import program_folder, why_unreachable

    found = program_folder(sys.executable)
    program = getattr(arguments, "program", None) or found
    if program is None:
        raise Failed(f"no twistd beside {sys.executable}: --program DIR names its folder")
    if arguments.role == "demo":
        return Places.of_folder(program, arguments.folder.absolute())
    if arguments.root is None and os.geteuid() != ROOT:
        return Places.of_home(program, os.environ)
    root = (arguments.root or SYSTEM_ROOT).resolve()
    if not root.is_dir():
        raise Failed(f"{root}: there is no such folder")
    if root == SYSTEM_ROOT and (reason := why_unreachable(program, sys.executable)):
        raise Failed(reason)
    if program.is_relative_to(root):
        program = SYSTEM_ROOT / program.relative_to(root)
    return Places.of_system(program, root)


def _wishes(arguments: argparse.Namespace) -> Wishes:
    from mta.installation.answers import mailboxes
    from mta.installation.wishes import Wishes

    if arguments.role == "demo":
        return Wishes(replaces=arguments.replace)
    return Wishes(
        users=mailboxes(arguments.mailbox or ()),
        has_sendmail=arguments.sendmail,
        dovecot=arguments.dovecot,
        log_file=arguments.log_file,
        replaces=arguments.replace,
        starts=not arguments.no_start,
        completions=_completions(),
    )


def _completions() -> dict[str, str]:
    """The script of each shell that completes our commands."""
    from mta.commands import whole_parser
    from mta.commands.completion import installed_scripts

    return installed_scripts(whole_parser())


def _surroundings(
    arguments: argparse.Namespace, role: Role, places: Places, present: Settings | None
) -> Surroundings:
    """Look at the network, and say what it lacks."""
    from mta.commands.surroundings import NOT_KNOWN, Surroundings, surroundings
    from mta.installation import host
    from mta.installation.answers import Answers
    from mta.installation.configuration import Configuration
    from mta.installation.systemd import Systemd

    if role not in NOT_KNOWN or arguments.offline or not places.is_this_host:
        return Surroundings()
    print("looking at the network ...", flush=True)
    hostname = arguments.hostname or (present.hostname if present else host.own_name())
    ports = Configuration(role, Answers(), places).ports
    held = host.Host().in_the_way(ports, sockets=Systemd(places).has_sockets)
    around = surroundings(role, hostname, ports)
    around = replace(around, remarks=[*held, *around.remarks])
    paint = painter()
    for line in around.remarks:
        print(paint("note:", "yellow"), printable(line), flush=True)
    return around


def _names(names: Mapping[str, str], hostname: str) -> Iterator[str]:
    """Lines about addresses whose reverse names are not the host's."""
    for address, name in names.items():
        if name != hostname:
            found = f"is {name}" if name else "is missing"
            yield f"the reverse name of {address} {found}, expected {hostname}; ask your provider"


def _show(lines: Sequence[str], paint: Paint) -> None:
    print("this will be done:")
    for line in lines:
        colour = _PAINTS.get(line[:1])
        text = printable(line)
        print(f"  {paint(text, colour) if colour else text}")


def _agree(arguments: argparse.Namespace, count: int) -> None:
    from mta.commands.questions import ask

    if not arguments.yes and ask(f"Do {count} things?", "yes").lower() not in ("y", "yes"):
        raise Failed("nothing is changed")


# --- the end ---------------------------------------------------------------------------


def _finish(arguments: argparse.Namespace, installation: Installation, *, is_new: bool) -> None:
    """Look whether it works, and say what comes next."""
    places, systemd = installation.places, installation.systemd
    if not places.is_this_host:
        print(f"next: systemctl --root {places.root} enable mta")
        return
    _check(installation)
    if is_new:
        _prove(installation)
    is_running = systemd.is_running and systemd.has_server
    if is_running:
        _examine(arguments, places)
    for line in _next(installation, is_running=is_running):
        print(f"next: {line}")


def _check(installation: Installation) -> None:
    """Let `mta check` say what is still wrong."""
    from mta.commands import main

    if main(["check", "--offline", "--config", str(installation.places.config)]):
        raise Failed("the server would not start so; mend that, then call this again")


def _examine(arguments: argparse.Namespace, places: Places) -> None:
    """Let `mta doctor` look at it, in a process of its own."""
    command = [sys.executable, "-c", DOCTOR, "doctor", "--config", str(places.config)]
    sys.stdout.flush()
    # It gives up the rights of root.  There is always something to mend: DNS records above all.
    words = [*command, *(["--offline"] if arguments.offline else [])]
    subprocess.run(words, check=False)  # noqa: S603 (our own command)


def _prove(installation: Installation) -> None:
    """Send a message through the server to the first mailbox."""
    from mta.config import load
    from mta.installation import proof

    places, systemd = installation.places, installation.systemd
    settings = load(places.config, secrets=False)
    port, address = proof.smtp_port(settings), _first_mailbox(installation.answers, places)
    if port is None or address is None:
        return
    if places.is_system and not (systemd.is_running and systemd.has_server):
        return
    local, _, domain = address.partition("@")
    command = [str(places.program / "twistd"), "--nodaemon", "--pidfile="]
    command += ["mta", "--config", str(places.config)]
    server = nullcontext() if places.is_system else proof.running(command, places.state)
    try:
        with server:
            taken = proof.send(port, settings.hostname, address, places.mail / domain / local)
    except proof.NotProven as fault:
        raise Failed(str(fault)) from None
    print(f"done: a message to {address} came through the server in {taken:.1f} s")


def _first_mailbox(answers: Answers, places: Places) -> str | None:
    if not (answers.domains and answers.mailboxes) or answers.deliver:
        return None
    return f"{answers.mailboxes[0]}@{answers.domains[0]}"


def _next(installation: Installation, *, is_running: bool) -> Iterator[str]:
    """The commands to call next."""
    places, role = installation.places, installation.role.value
    config = "" if places.is_system else f" --config {places.config}"
    if not is_running:
        yield _start_command(installation)
        yield f"mta doctor{config}"
    if role == "vps":
        yield f"mta pair office --domain example.com{config}   (prints a line for the office)"
    elif role == "office":
        yield f"mta pair mta1:...{config}   (the line that `mta pair` prints on the vps)"
    elif role == "demo":
        yield f"mta user list{config}"


def _start_command(installation: Installation) -> str:
    from mta.installation.roles import has_user_systemd

    places = installation.places
    if installation.systemd.is_running:
        return "systemctl enable --now mta"
    if installation.role.value != "demo" and not places.is_system and has_user_systemd():
        return "systemctl --user enable --now mta"
    return f"{places.program / 'twistd'} --nodaemon --pidfile= mta --config {places.config}"
