"""The templates of hops: Maildir paths, and arguments of commands.

An address is filled in.  Where that must fail for an address, mail for it is refused at RCPT.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from mta.mail import Agent, Hop, Mailbox, Reply

MAX_FILE_NAME = 255  # octets: NAME_MAX of the usual file systems
_SHORT = 60  # characters: no file name is too long for an address of so many in ASCII

UNSAFE = Reply(550, "5.1.3", ("This address can't be handed to the program behind it",))
TOO_LONG = Reply(550, "5.1.3", ("Address too long",))

_IN_PATH = re.compile(r"\{(domain|local|address)\}")
_IN_COMMAND = re.compile(r"\{(sender|recipient|domain|local)\}")
_ASCII = re.compile(r"[\x00-\x7f]+")


def refusal(hop: Hop, reverse_path: Mailbox, address: Mailbox) -> Reply | None:
    """The refusal of an address that a hop can never deliver to.

    None where it can.
    """
    match hop.agent:
        case Agent.MAILDIR:
            text = str(address)
            if len(text) <= _SHORT and text.isascii():
                return None
            path = mailbox_path(hop.next_hop, address)
            longest = max(len(name.encode("utf-8", "surrogatepass")) for name in path.split("/"))
            return TOO_LONG if longest > MAX_FILE_NAME else None
        case Agent.PIPE:
            try:
                filled = command_line(hop.next_hop, placeholders(reverse_path, address))
            except ValueError:  # of the configuration, which may be corrected
                return None
            return UNSAFE if filled is None else None
        case _:
            return None


# --- Maildirs


def file_name(text: str) -> str:
    """`text` as one file name.

    Letters and signs of all scripts stay, as Dovecot's ``%n`` has them.  What has a meaning in
    paths, and what is not printable, becomes %XX.
    """
    name = _ASCII.sub(lambda found: quote(found[0], safe="+=,", errors="surrogatepass"), text)
    name = "".join(
        each if each.isprintable() else quote(each, errors="surrogatepass") for each in name
    )
    return not_hidden(name)


def not_hidden(name: str) -> str:
    """A file name that is neither empty nor begins with a dot."""
    return "%2E" + name[1:] if name.startswith(".") else name or "%"


def mailbox_path(
    template: str, address: Mailbox, as_file_name: Callable[[str], str] = file_name
) -> str:
    """The path of the Maildir of an address."""
    local, domain = as_file_name(address.local_part), as_file_name(address.domain)
    values = {"local": local, "domain": domain, "address": f"{local}@{domain}"}
    return _IN_PATH.sub(lambda match: values[match[1]], template)


# --- commands


def placeholders(reverse_path: Mailbox, address: Mailbox) -> Mapping[str, str]:
    """The values of the placeholders of a command."""
    return {
        "sender": str(reverse_path),
        "recipient": str(address),
        "local": address.local_part,
        "domain": address.domain,
    }


def command_line(template: str, values: Mapping[str, str]) -> Sequence[str] | None:
    """A command and its arguments; None for an unsafe address.

    That is one which would make an option of an argument that is none. Raises ValueError for a
    template that is no command.
    """
    command, *arguments = shlex.split(template)  # an empty template raises ValueError here
    filled = [_IN_COMMAND.sub(lambda found: values[found[1]], each) for each in arguments]
    if any(map(_became_option, arguments, filled)) or "\0" in "".join(values.values()):
        return None
    return [command, *filled]


def _became_option(template: str, filled: str) -> bool:
    return filled.startswith("-") and not template.startswith("-")
