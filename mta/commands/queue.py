"""``mta queue``: the messages that wait, and what to do with them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import islice
from typing import TYPE_CHECKING

from mta.commands import messages
from mta.commands.console import (
    Failed,
    add_command,
    add_group,
    add_json,
    print_json,
    router_of,
    seconds,
    settings_of,
    something,
    spool_of,
)
from mta.commands.terminal import Bar, pages, painter
from mta.interfaces import Entry, Filter, Message, Notice, Progress, State, Target
from mta.logs import note
from mta.mail import Outcome, Reply, Status
from mta.notices import NoticeWriter
from mta.queue.rounds import UNROUTED
from mta.routing import Router
from mta.smtp.errors import Refusal
from mta.spool.tools import SpoolTools, result_of

if TYPE_CHECKING:
    from mta.commands.console import Subparsers

_WORDS = (
    ("--from", "reverse_path", "A", "reverse-path; '<>' for notices"),
    ("--to", "forward_path", "A", "still to be delivered to this forward-path"),
    ("--domain", "domain", "D", "still to be delivered to an address in this domain"),
    ("--peer", "peer", "P", "held for this peer"),
)
_PORTION = 500  # messages changed at once

_Change = Callable[[argparse.Namespace, SpoolTools, Sequence[Entry]], Collection[str]]


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    group = add_group(subparsers, "queue", "look at queued messages and change them")
    listing = add_command(group, "list", _list, "list queued messages, oldest first")
    _add_filter(listing)
    add_json(listing)
    show = add_command(group, "show", _show, "show everything known of one message")
    show.add_argument("id", metavar="ID", type=str.upper)
    show.add_argument("--content", action="store_true", help="show its content, too")
    add_json(show)
    for name, change, done, summary in _CHANGES:
        parser = _add_change(group, name, _change, summary, change, done)
        _add_filter(parser)
        parser.set_defaults(usage_error=parser.error)
    summary = "try now all that goes to a domain or a peer"
    flush = _add_change(group, "flush", _flush, summary, _by_id(SpoolTools.retry), "due now")
    flush.add_argument("destination", metavar="DOMAIN|PEER")


def _add_change(
    group: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
    change: _Change,
    done: str,
) -> argparse.ArgumentParser:
    """Add a command that changes messages; `done`: what they are afterwards."""
    parser = add_command(group, name, run, summary)
    parser.add_argument("--dry-run", action="store_true", help="only list what is meant")
    add_json(parser)
    parser.set_defaults(change=change, done=done, action=name)
    return parser


def _add_filter(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which messages", "All that fit every part that is given.")
    group.add_argument("ids", metavar="ID", nargs="*", type=str.upper)
    group.add_argument("--all", action="store_true", help="all messages")
    for option, name, letter, meaning in _WORDS:
        group.add_argument(option, dest=name, metavar=letter, help=meaning, type=something)
    group.add_argument(
        "--older", type=seconds, default=0.0, metavar="AGE", help="arrived before: 90s, 5m, 4h, 5d"
    )
    group.add_argument("--state", default="", choices=("active", "waiting", "held"))


def _filter(arguments: argparse.Namespace) -> Filter:
    reverse_path, forward_path = arguments.reverse_path or "", arguments.forward_path or ""
    return Filter(
        ids=frozenset(arguments.ids),
        reverse_path=reverse_path.strip("<>") or reverse_path,
        forward_path=forward_path.strip("<>"),
        domain=arguments.domain or "",
        peer=arguments.peer or "",
        older=arguments.older,
        state=arguments.state,
    )


def _list(arguments: argparse.Namespace) -> None:
    wanted = _filter(arguments)
    with spool_of(settings_of(arguments)) as tools:
        found = print_list(tools.find(wanted), in_json=arguments.json)
    _complain_of_missing(wanted.ids - found if wanted.ids else frozenset())


def _show(arguments: argparse.Namespace) -> None:
    with spool_of(settings_of(arguments)) as tools:
        entry = next(iter(tools.find(Filter(ids=frozenset({arguments.id})))), None)
        if entry is None:
            raise Failed(f"no message {arguments.id} in the queue")
        if arguments.json:
            print_json(messages.document(entry, time.time(), content=arguments.content))
            return
        paint = painter()
        with pages():
            print(messages.page(entry, time.time(), paint))
            if arguments.content:
                messages.print_content(entry.message)


def _change(arguments: argparse.Namespace) -> None:
    wanted = _filter(arguments)
    if wanted == Filter() and not arguments.all:
        arguments.usage_error("which messages?  Name them, or use a filter or --all")
    _change_all(arguments, wanted)


def _flush(arguments: argparse.Namespace) -> None:
    """Retry all that goes to a peer, or to a domain."""
    settings, name = settings_of(arguments), arguments.destination.lower()
    if arguments.destination in settings.peers:
        _change_all(arguments, Filter(peer=arguments.destination))
        return
    router = router_of(settings)
    _change_all(
        arguments,
        Filter(domain=name),
        # What is for our own domains may lead there by an alias.
        *(Filter(domain=domain, state="waiting") for domain in settings.domains if domain != name),
        fits=lambda entry: _goes_to(router, entry.message, name),
    )


def _goes_to(router: Router, message: Message, domain: str) -> bool:
    """Whether a message still has to be delivered to an address in that domain."""
    for progress in message.progress:
        if progress.state is State.DONE:
            continue
        forward_path = progress.recipient.forward_path
        with suppress(Refusal):
            routed = router.route(forward_path, message.envelope.reverse_path)
            if any(address.domain.lower() == domain for address, _ in routed):
                return True
        if forward_path.domain.lower() == domain:
            return True
    return False


def _change_all(
    arguments: argparse.Namespace,
    *wanted: Filter,
    fits: Callable[[Entry], bool] = lambda entry: True,
) -> None:
    """Change the messages that fit any of the filters."""
    settings = settings_of(arguments)
    found: set[str] = set()
    changed = 0
    with spool_of(settings) as tools:
        if arguments.dry_run:
            entries = filter(fits, _found(tools, wanted))
            found = print_list(entries, in_json=arguments.json)
        else:
            with closing(Bar(sum(map(tools.count, wanted)))) as bar:
                for portion in _portions(_found(tools, wanted)):
                    chosen = [entry for entry in portion if fits(entry)]
                    found.update(entry.message.id for entry in chosen)
                    for name in arguments.change(arguments, tools, chosen):
                        changed += 1
                        note(settings.log, f"{{queue_id}} {arguments.done} by hand", queue_id=name)
                    bar.advance(len(portion))
    if not arguments.dry_run:
        _report(arguments, len(found), changed)
    ids = frozenset[str]().union(*(each.ids for each in wanted))
    _complain_of_missing(ids - found)
    if ids and changed < len(found) and not arguments.dry_run:
        raise Failed("the others are being delivered just now, or are that already")


def _found(tools: SpoolTools, wanted: Iterable[Filter]) -> Iterator[Entry]:
    """The messages that fit any of the filters, each once."""
    seen: set[str] = set()
    for each in wanted:
        for entry in tools.find(each):
            if entry.message.id not in seen:
                seen.add(entry.message.id)
                yield entry


def _by_id(change: Callable[[SpoolTools, Collection[str]], Collection[str]]) -> _Change:
    """What changes messages that are known by their ids."""
    return lambda arguments, tools, portion: change(tools, [entry.message.id for entry in portion])


def _bounce(
    arguments: argparse.Namespace, tools: SpoolTools, portion: Sequence[Entry]
) -> Collection[str]:
    """Tell the senders that we gave up, and remove the messages."""
    writer = NoticeWriter(settings_of(arguments).hostname)
    return tools.bounce([(entry.message, _notice(writer, entry.message)) for entry in portion])


def _notice(writer: NoticeWriter, message: Message) -> Notice | None:
    """The notice of failure for all recipients that are still open; None: nobody is to be told."""
    if message.envelope.reverse_path.is_null:
        return None  # the postmaster, who would be told, asks for it
    reports = [
        (Target(number, progress.recipient.forward_path, UNROUTED), _given_up(progress))
        for number, progress in enumerate(message.progress)
        if progress.state is not State.DONE
    ]
    return result_of(writer.notice(message, reports, expires=0.0))


def _given_up(progress: Progress) -> Outcome:
    last = f"The last attempt: {progress.history[-1].reply}" if progress.history else ""
    lines = tuple(filter(None, ("The postmaster gave up on this message", last)))
    return Outcome(Status.FAILED, Reply(554, "5.0.0", lines))


def _report(arguments: argparse.Namespace, found: int, changed: int) -> None:
    if arguments.json:
        print_json({"action": arguments.action, "found": found, "changed": changed})
    else:
        number = str(found) if changed == found else f"{changed} of {found}"
        print(f"{number} message{'' if found == 1 else 's'} {arguments.done}")


def print_list(entries: Iterable[Entry], *, in_json: bool = False) -> set[str]:
    """Print messages as they are read; returns their ids."""
    found: set[str] = set()
    if in_json:
        for entry in entries:
            print_json(messages.summary(entry, time.time()))
            found.add(entry.message.id)
        return found
    paint = painter()
    with pages():
        for entry in entries:
            if not found:
                print(paint(messages.HEADING, "bold"))
            found.add(entry.message.id)
            print(messages.lines(entry, time.time(), paint))
        if not found:
            print("no messages")
    return found


def _complain_of_missing(ids: Collection[str]) -> None:
    if ids:
        raise Failed(f"not in the queue, or not what the filter says: {' '.join(sorted(ids))}")


def _portions(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    while portion := list(islice(entries, _PORTION)):
        yield portion


_CHANGES = (
    ("hold", _by_id(SpoolTools.hold), "held", "keep messages until they are released"),
    ("release", _by_id(SpoolTools.release), "released", "let held messages go on"),
    ("retry", _by_id(SpoolTools.retry), "due now", "try messages now"),
    ("delete", _by_id(SpoolTools.delete), "deleted", "remove messages without a notice"),
    ("bounce", _bounce, "bounced", "give messages up, and tell their senders"),
)
