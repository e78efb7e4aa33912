"""``mta check``: whether the server would start with a configuration, and work."""

from __future__ import annotations

import argparse
import importlib
import os
import pickle
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mta.commands.console import Failed, add_command, settings_of
from mta.config import ConfigurationError, Problem, load
from mta.config.places import Places
from mta.installation.sockets import without_socket
from mta.privileges import ROOT, Account, PrivilegeFault, account_named, server_account
from mta.settings import Settings

if TYPE_CHECKING:
    from mta.commands.console import Subparsers

DENIED = "Permission denied"  # in whatever the system says


@dataclass(frozen=True, slots=True)
class Report:
    """The findings: what prevents a start, and what else is to know."""

    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    def naming(self, account: Account) -> Report:
        """The same with the name of the user whose rights were tried."""
        named = f"{DENIED} for the user {account}"

        def named_in(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
            return tuple(
                _with(problem, problem.text.replace(DENIED, named)) for problem in problems
            )

        return Report(named_in(self.errors), named_in(self.warnings))


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    summary = "check a configuration file, and open what the server will open"
    parser = add_command(subparsers, "check", _run, summary)
    parser.add_argument(
        "--offline", action="store_true", help="do not look for the records of DKIM keys"
    )
    parser.add_argument(
        "--user",
        metavar="NAME",
        help="whose rights count (root only; default: run_as, else the owner of the spool)",
    )


def _run(arguments: argparse.Namespace) -> None:
    path: Path = arguments.config
    account = _account(arguments, settings_of(arguments, keep_root=True))
    report = report_of(path, account, asks_dns=not arguments.offline)
    for problem in report.warnings:
        print(_with(problem, f"warning: {problem.text}"), file=sys.stderr)
    if report.errors:
        raise ConfigurationError(report.errors)
    print(f"{path}: ok")


def report_of(path: Path, account: Account | None, *, asks_dns: bool = False) -> Report:
    """Look at a configuration with the rights of an account.

    None: our own.  With `asks_dns`, the DNS is asked for the records of DKIM keys.
    """
    if account is None or os.geteuid() == account.uid:
        return _look(path, asks_dns=asks_dns)
    if os.geteuid() == ROOT:
        return _look_as(account, path, asks_dns=asks_dns).naming(account)
    return _look_without_rights(account, path)


def _account(arguments: argparse.Namespace, settings: Settings) -> Account | None:
    """The account whose rights count; None: our own."""
    try:
        if arguments.user:
            return account_named(arguments.user)
        if os.geteuid() == ROOT:
            return server_account(settings)
        return account_named(settings.run_as) if settings.run_as else None
    except PrivilegeFault as fault:
        if arguments.user:
            raise Failed(str(fault)) from None
        return None


def _look_as(account: Account, path: Path, *, asks_dns: bool) -> Report:
    """Look in a new process, which becomes another user for good."""
    # Before it becomes a user that may not read our own files.
    importlib.import_module("mta.service.findings")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            account.become()
            with os.fdopen(writing, "wb") as stream:
                pickle.dump(_look(path, asks_dns=asks_dns), stream)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        octets = stream.read()
    os.waitpid(child, 0)
    if not octets:
        raise Failed(f"can't check with the rights of {account}")
    report: Report = pickle.loads(octets)  # noqa: S301 - our own child wrote it
    return report


def _look_without_rights(account: Account, path: Path) -> Report:
    """Look as a user that can't know what the server may do."""
    report = _look(path, asks_dns=False)
    errors = [problem for problem in report.errors if DENIED not in problem.text]
    warnings = [problem for problem in report.warnings if DENIED not in problem.text]
    text = f"what {account} may do is not checked: only root and {account} can"
    return Report(tuple(errors), (Problem(path, 1, 1, text), *warnings))


def _look(path: Path, *, asks_dns: bool) -> Report:
    from mta.service.findings import findings, open_secrets, unusable_addresses

    try:
        settings = load(path)
        places = Places(path)
    except ConfigurationError as error:
        return Report(error.problems)
    found = [*findings(settings), *unusable_addresses(settings)]
    if asks_dns and any(domain.dkim for domain in settings.domains.values()):
        from mta.commands.published_keys import differences  # with the reactor, which takes a while

        found += differences(settings)
    problems = {False: [*open_secrets(path, places)], True: []}
    for number, text in without_socket(path, settings.listen):
        problems[False].append(places.problem(("listen", number, "endpoint"), text))
    for finding in found:
        problems[finding.is_fatal].append(places.problem(finding.keys, finding.text))
    return Report(tuple(sorted(set(problems[True]))), tuple(sorted(set(problems[False]))))


def _with(problem: Problem, text: str) -> Problem:
    return replace(problem, text=text)
