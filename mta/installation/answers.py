"""The answers that decide what an installation is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mta.config import load
from mta.mail import Agent
from mta.settings import Settings

_DOMAIN = re.compile(r"(?=.{1,253}\Z)(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_][\w-]*")
_LOCAL_PART = re.compile(r"[^\W_][\w.+-]{0,63}")
_SEPARATOR = re.compile(r"[\s,]+")


class Role(Enum):
    """The kinds of installations."""

    VPS = "vps"
    OFFICE = "office"
    SERVER = "server"
    DEMO = "demo"

    @property
    def has_mailboxes(self) -> bool:
        """True for one that needs a domain whose mailboxes are here."""
        return self in (Role.OFFICE, Role.SERVER)


class WrongAnswer(Exception):
    """An answer that can't be used: one line, with what is expected."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers: what the server is called, and whose mail it takes.

    `deliver` is a next hop for the mail of all domains; empty: Maildirs.
    """

    hostname: str = ""
    domains: Sequence[str] = ()
    mailboxes: Sequence[str] = ()
    deliver: str = ""

    @property
    def users(self) -> dict[str, Sequence[str]]:
        """The users who log in, with the addresses that they write as."""
        return {
            name: [f"{name}@{domain}" for domain in self.domains]
            for name in self.mailboxes
            if self.domains and not self.deliver
        }


def present_settings(config: Path) -> Settings | None:
    """Return the settings of a configuration, if it is there.

    Raises ConfigurationError.
    """
    return load(config, secrets=False) if config.exists() else None


def answers_in(settings: Settings | None) -> Answers:
    """Return the answers that a configuration stands for, if it is there."""
    if settings is None:
        return Answers()
    local = {
        name: domain
        for name, domain in settings.domains.items()
        if domain.deliver.agent is Agent.MAILDIR and not domain.alias_of
    }
    boxes = {box for domain in local.values() for box in domain.mailboxes or ()}
    return Answers(settings.hostname, list(local), sorted(boxes))


def hostname(text: str) -> str:
    """Check the name of a host.  Raises WrongAnswer."""
    name = text.strip().rstrip(".").lower()
    if not _DOMAIN.fullmatch(name):
        raise WrongAnswer(f"{text!r} is no full host name, expected one such as mail.example.com")
    return name


def domains(text: str | Iterable[str]) -> Sequence[str]:
    """Check some domains, separated by spaces or commas.  Raises WrongAnswer."""
    found = [name.rstrip(".").lower() for name in _words(text)]
    for name in found:
        if not _DOMAIN.fullmatch(name):
            raise WrongAnswer(f"{name!r} is no domain, expected one such as example.com")
    return found


def mailboxes(text: str | Iterable[str]) -> Sequence[str]:
    """Check some local parts, separated by spaces or commas.  Raises WrongAnswer."""
    found = [name.partition("@")[0].lower() for name in _words(text)]
    for name in found:
        if not _LOCAL_PART.fullmatch(name):
            raise WrongAnswer(f"{name!r} is no mailbox, expected a name such as alice")
    return found


def _words(text: str | Iterable[str]) -> Sequence[str]:
    joined = text if isinstance(text, str) else " ".join(text)
    return list(dict.fromkeys(word for word in _SEPARATOR.split(joined) if word))
