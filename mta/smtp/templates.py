"""The templates of hops with an address filled in: the path of a Maildir, the words of a command.

What is sure to fail there is known before mail is taken for it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from mta.mail import Agent, Hop, Mailbox, Reply

MAX_FILE_NAME = 255  # octets, NAME_MAX of the file systems that there are
_SHORT = 60  # characters of an address in ASCII that no file name is too long for

UNSAFE = Reply(550, "5.1.3", ("This address can't be handed to the program behind it",))
TOO_LONG = Reply(550, "5.1.3", ("Address too long",))

_IN_PATH = re.compile(r"\{(domain|local|address)\}")
_IN_COMMAND = re.compile(r"\{(sender|recipient|domain|local)\}")
_ASCII = re.compile(r"[\x00-\x7f]+")


def refusal(hop: Hop, reverse_path: Mailbox, address: Mailbox) -> Reply | None:
    """Why mail for an address can't be delivered by a hop, whenever it is tried; None: it may."""
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

    Letters and signs of all scripts stay, as Dovecot's ``%n`` has them; an octet that could mean
    something else there, and what nobody can see, becomes %XX.
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
    """What the placeholders of a command stand for."""
    return {
        "sender": str(reverse_path),
        "recipient": str(address),
        "local": address.local_part,
        "domain": address.domain,
    }


def command_line(template: str, words: Mapping[str, str]) -> Sequence[str] | None:
    """A command and its arguments; None where an address would make an option of what is none.

    Raises ValueError for a template that is no command.
    """
    command, *arguments = shlex.split(template)  # of nothing: no command, a ValueError, too
    filled = [_IN_COMMAND.sub(lambda found: words[found[1]], each) for each in arguments]
    if any(map(_became_option, arguments, filled)) or "\0" in "".join(words.values()):
        return None
    return [command, *filled]


def _became_option(template: str, filled: str) -> bool:
    return filled.startswith("-") and not template.startswith("-")
