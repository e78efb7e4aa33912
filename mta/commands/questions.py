"""The questions of ``mta init``, which options answer as well."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from mta.commands.console import Failed
from mta.installation import answers as valid
from mta.installation import host
from mta.installation.answers import Answers, Role, WrongAnswer
from mta.settings import Settings

DEMO = Answers("mail.demo.example", ["demo.example"], ["alice", "bob"])
MAX_TRIES = 3

T = TypeVar("T")


def answers_for(
    role: Role,
    arguments: argparse.Namespace,
    present: Settings | None,
    names: Iterable[str] = (),
) -> Answers:
    """Return the answers for a role.

    `names` are those that this host has in the DNS.
    An option counts first, then the configuration that is there, then the person, who is asked
    only what is in neither.  Raises Failed or WrongAnswer.
    """
    if role is Role.DEMO:
        return DEMO
    known, is_new = valid.answers_in(present), present is None
    hostname = valid.hostname(arguments.hostname) if arguments.hostname else known.hostname
    domains = valid.domains([*known.domains, *(arguments.domain or ())])
    mailboxes = valid.mailboxes([*known.mailboxes, *(arguments.mailbox or ())])
    interview = Interview(is_silent=arguments.yes or not is_new)
    if not domains and role is Role.OFFICE:
        domains = interview.domains()
    if not hostname:
        hostname = interview.hostname(_likely_name(role, domains, arguments, names))
    if not domains and is_new and role is Role.SERVER:
        domains = interview.domains(_parent(hostname))
    if domains and not mailboxes and is_new and not arguments.deliver:
        mailboxes = interview.mailboxes()
    return Answers(hostname, domains, mailboxes, arguments.deliver)


class Interview:
    """The questions to a person; a silent one takes the defaults."""

    def __init__(self, *, is_silent: bool) -> None:
        self._is_silent = is_silent

    def hostname(self, default: str) -> str:
        """The name of this host."""
        return self._answer("Full name of this host", default, "--hostname", valid.hostname)

    def domains(self, default: str = "") -> Sequence[str]:
        """The domains whose mail ends here."""
        return self._answer("Domains whose mail ends here", default, "--domain", valid.domains)

    def mailboxes(self) -> Sequence[str]:
        """The mailboxes of these domains."""
        return self._answer("Mailboxes", _own_name(), "--mailbox", valid.mailboxes)

    def _answer(self, question: str, default: str, option: str, read: Callable[[str], T]) -> T:
        for _ in range(MAX_TRIES):
            text = default if self._is_silent else ask(question, default)
            try:
                if text:
                    return read(text)
            except WrongAnswer as fault:
                print(fault)
            if self._is_silent:
                break
        raise Failed(f"no answer to {question.lower()!r}: give {option}")


def ask(question: str, default: str) -> str:
    """Ask a person.  Raises Failed where there is none."""
    try:
        return input(f"{question}{f' [{default}]' if default else ''}: ").strip() or default
    except EOFError:
        print()
        raise Failed("nobody is there to answer: --yes takes the defaults") from None


def _likely_name(
    role: Role, domains: Sequence[str], arguments: argparse.Namespace, names: Iterable[str]
) -> str:
    """The name that this host probably has."""
    for name in names:
        return name
    if role is Role.OFFICE and domains:
        return f"office.{domains[0]}"
    return host.own_name() if arguments.root is None else ""


def _parent(hostname: str) -> str:
    """The domain that a host is probably for."""
    parent = hostname.partition(".")[2]
    return parent if "." in parent else hostname


def _own_name() -> str:
    """The name of the person who calls us, for the first mailbox."""
    name = os.environ.get("SUDO_USER") or os.environ.get("LOGNAME") or ""
    return name if name not in ("", "root") else "postmaster"
