"""The edits that a configuration needs which is there already.

It has been worked with: by a person, by ``mta pair``.  So it is not written anew: what was asked
for is added to it, and the rest stays, with all comments.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mta.config import Edits, Keys
from mta.installation.answers import Answers
from mta.installation.configuration import Configuration
from mta.mail import Agent
from mta.settings import Settings


def additions(present: Settings, wanted: Configuration) -> Edits:
    """Return the edits that lead from the present to what is wanted."""
    return dict(_all(present, wanted))


def _all(present: Settings, wanted: Configuration) -> Iterator[tuple[Keys, Any]]:
    answers, options = wanted.answers, wanted.options
    if answers.hostname != present.hostname:
        yield ("hostname",), answers.hostname
    for name in answers.domains:
        if name in present.domains:
            yield from _mailboxes(present, answers, name)
        else:
            yield from _domain(present, wanted, name)
    if options.has_certificate and present.tls.pair is None:
        yield ("tls", "certificate"), "cert.pem"
        yield ("tls", "key"), "key.pem"
    if options.log_file and options.log_file != present.log.file:
        yield ("log", "file"), options.log_file
    if options.users.startswith("dovecot:") and options.users != present.users:
        yield ("users",), options.users


def _mailboxes(present: Settings, answers: Answers, name: str) -> Iterator[tuple[Keys, Any]]:
    """New mailboxes of a domain that has some, in Maildirs."""
    domain = present.domains[name]
    if domain.deliver.agent is Agent.MAILDIR and domain.mailboxes is not None:
        known = sorted(domain.mailboxes)
        new = [each for each in answers.mailboxes if each not in domain.mailboxes]
        if new:
            yield ("domains", name, "mailboxes"), [*known, *new]


def _domain(present: Settings, wanted: Configuration, name: str) -> Iterator[tuple[Keys, Any]]:
    boxes = list(wanted.answers.mailboxes)
    yield ("domains", name, "deliver"), wanted.deliver
    yield ("domains", name, "mailboxes"), boxes or "any"
    for alias in wanted.aliases_of(name, present.domains):
        yield ("domains", name, "aliases", alias), boxes[0]
    if keys := wanted.keys_of(name):
        yield ("domains", name, "dkim"), keys
