"""``mta queue``: the messages that wait, and what to do with them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import islice
from typing import TYPE_CHECKING

from mta.commands import messages, standing
from mta.commands.console import (
    Failed,
    add_command,
    add_group,
    add_json,
    listing_of,
    nonempty,
    print_json,
    router_of,
    seconds,
    settings_of,
    spool_of,
)
from mta.commands.known import is_known
from mta.commands.situations import Situations
from mta.commands.terminal import Bar, pages, painter
from mta.mail import Outcome, Reply, Status, canonical_domain
from mta.queued import Filter, Message, Notice, Progress, State, Target
from mta.spool.listing import ON_HOLD, Listed

# What is needed for some changes only, and takes a while, is imported where it is used: the first
# line of a list is to come at once.
if TYPE_CHECKING:
    from mta.commands.console import Subparsers
    from mta.interfaces import INotices
    from mta.routing import Router
    from mta.settings import Settings
    from mta.spool.interfaces import ITools

_WORDS = (
    ("--from", "reverse_path", "A", "reverse-path; '<>' for notices"),
    ("--to", "forward_path", "A", "still to be delivered to this forward-path"),
    ("--domain", "domain", "D", "still to be delivered to an address in this domain"),
    ("--peer", "peer", "P", "held for this peer"),
    ("--user", "user", "U", "sent by this user, who had logged in"),
)
_KNOWN = {"domain": "domains", "peer": "peers", "user": "users"}
_BATCH_SIZE = 500  # messages changed at once

_Change = Callable[[argparse.Namespace, "ITools", Sequence[str]], Collection[str]]


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    group = add_group(subparsers, "queue", "look at queued messages and change them")
    listing = add_command(group, "list", _list, "list queued messages, oldest first")
    _add_filter(listing)
    add_json(listing)
    show = add_command(group, "show", _show, "show everything known of one message")
    is_known(show.add_argument("id", metavar="ID", type=str.upper), "ids")
    show.add_argument("--content", action="store_true", help="show its content, too")
    add_json(show)
    for name, change, done, summary in _CHANGES:
        parser = _add_change(group, name, _change, summary, change, done)
        _add_filter(parser)
        if name in standing.VERBS:
            standing.add_option(parser, name)
        parser.set_defaults(usage_error=parser.error)
    summary = "try now all that goes to a domain or a peer"
    flush = _add_change(group, "flush", _flush, summary, _retry, "due now")
    is_known(flush.add_argument("destination", metavar="DOMAIN|PEER"), "destinations")


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
    is_known(group.add_argument("ids", metavar="ID", nargs="*", type=str.upper), "ids")
    group.add_argument("--all", action="store_true", help="all messages")
    for option, name, letter, meaning in _WORDS:
        argument = group.add_argument(
            option, dest=name, metavar=letter, help=meaning, type=nonempty
        )
        if name in _KNOWN:
            is_known(argument, _KNOWN[name])
    group.add_argument(
        "--older", type=seconds, default=0.0, metavar="AGE", help="arrived before: 90s, 5m, 4h, 5d"
    )
    group.add_argument(
        "--state",
        default="",
        choices=("active", "waiting", "held", ON_HOLD, "damaged"),
        help=f"'held' is for a peer or on hold, {ON_HOLD!r} is what is kept until it is released",
    )


def _filter(arguments: argparse.Namespace) -> Filter:
    reverse_path, forward_path = arguments.reverse_path or "", arguments.forward_path or ""
    return Filter(
        ids=frozenset(arguments.ids),
        reverse_path=reverse_path.strip("<>") or reverse_path,
        forward_path=forward_path.strip("<>"),
        domain=arguments.domain or "",
        peer=arguments.peer or "",
        user=arguments.user or "",
        older=arguments.older,
        state=arguments.state,
    )


def _list(arguments: argparse.Namespace) -> None:
    wanted, settings = _filter(arguments), settings_of(arguments)
    with listing_of(settings) as listing:
        found = print_list(settings, listing.find(wanted), listing.now(), in_json=arguments.json)
    _complain_of_missing(wanted.ids - found if wanted.ids else frozenset())


def _show(arguments: argparse.Namespace) -> None:
    with spool_of(settings_of(arguments)) as tools:
        entry = next(iter(tools.find(Filter(ids=frozenset({arguments.id})))), None)
        if entry is None:
            raise Failed(f"no message {arguments.id} in the queue")
        if arguments.json:
            print_json(messages.document(entry, tools.now(), content=arguments.content))
            return
        paint = painter()
        with pages():
            print(messages.page(entry, tools.now(), paint))
            if arguments.content:
                print()
                messages.print_content(entry.message)


def _change(arguments: argparse.Namespace) -> None:
    wanted = _filter(arguments)
    if wanted == Filter() and not arguments.all:
        arguments.usage_error("which messages?  Name them, or use a filter or --all")
    settings, about = settings_of(arguments), [wanted]
    if getattr(arguments, "new", False):
        standing.change(arguments, settings, wanted)
        about = [*standing.names_of(settings, wanted)]
    _change_all(arguments, *about)
    standing.explain(arguments, settings, wanted)


def _flush(arguments: argparse.Namespace) -> None:
    """Retry all that goes to a peer, or to a domain."""
    settings, name = settings_of(arguments), canonical_domain(arguments.destination)
    if arguments.destination in settings.peers:
        peer = arguments.destination
        _change_all(arguments, Filter(peer=peer))
        if not (arguments.json or arguments.dry_run):
            print(f"held for {peer}, {Situations(settings).of(peer)}")
        return
    router = router_of(settings)
    _change_all(
        arguments,
        Filter(domain=name),
        # What is for our own domains may lead there by an alias.
        *(Filter(domain=domain, state="waiting") for domain in settings.domains if domain != name),
        fits=lambda listed: _goes_to(router, listed, name),
    )


def _goes_to(router: Router, listed: Listed, domain: str) -> bool:
    """Return whether a message is still to be delivered in that domain."""
    from mta.smtp.errors import Refusal

    for recipient in listed.recipients:
        if recipient.state == State.DONE.value:
            continue
        with suppress(Refusal):
            routed = router.route(recipient.forward_path, listed.reverse_path)
            if any(address.domain == domain for address, _ in routed):
                return True
        if recipient.forward_path.domain == domain:
            return True
    return False


def hold_mail_of(arguments: argparse.Namespace, user: str) -> None:
    """Put on hold what a user has sent, as ``queue hold`` does."""
    name, change, done, _ = _HOLD
    options = {"dry_run": False, "json": False, "action": name, "change": change, "done": done}
    _change_all(argparse.Namespace(**vars(arguments) | options), Filter(user=user))


def _change_all(
    arguments: argparse.Namespace,
    *wanted: Filter,
    fits: Callable[[Listed], bool] = lambda listed: True,
) -> None:
    """Change the messages that fit any of the filters."""
    settings = settings_of(arguments)
    found: set[str] = set()
    changed = 0
    with spool_of(settings) as tools:
        if arguments.dry_run:
            chosen = filter(fits, _found(tools, wanted))
            found = print_list(settings, chosen, tools.now(), in_json=arguments.json)
        else:
            total = sum(map(tools.count, wanted))
            with closing(Bar(total)) as bar, tools.in_portions() as rest:
                for batch in _batches(_found(tools, wanted)):
                    fitting = [listed.id for listed in batch if fits(listed)]
                    found.update(fitting)
                    changed += _change_batch(arguments, settings, tools, fitting)
                    bar.advance(len(batch))
                    if len(batch) == _BATCH_SIZE:
                        rest()
    if not arguments.dry_run:
        _report(arguments, len(found), changed)
    ids = frozenset[str]().union(*(each.ids for each in wanted))
    _complain_of_missing(ids - found)
    if ids and changed < len(found) and not arguments.dry_run:
        raise Failed("the others are being delivered just now, or are that already")


def _change_batch(
    arguments: argparse.Namespace, settings: Settings, tools: ITools, ids: Sequence[str]
) -> int:
    """Change these messages, and log it.  Returns the number of those that were changed."""
    from mta.logs.file import note

    changed = arguments.change(arguments, tools, ids)
    for name in changed:
        note(settings.log, f"{{queue_id}} {arguments.done} by hand", queue_id=name)
    return len(changed)


def _found(tools: ITools, wanted: Iterable[Filter]) -> Iterator[Listed]:
    """The messages that fit any of the filters, each once."""
    seen: set[str] = set()
    for each in wanted:
        for listed in tools.listed(each):
            if listed.id not in seen:
                seen.add(listed.id)
                yield listed


def _retry(_: argparse.Namespace, tools: ITools, ids: Sequence[str]) -> Collection[str]:
    return tools.retry(ids)


def _bounce(arguments: argparse.Namespace, tools: ITools, ids: Sequence[str]) -> Collection[str]:
    """Tell the senders that we gave up, and remove the messages."""
    writer = _writer(settings_of(arguments))
    found = [entry.message for entry in tools.find(Filter(ids=frozenset(ids)))]
    return tools.bounce([(message, _notice(writer, message)) for message in found])


def _writer(settings: Settings) -> INotices:
    """The writer of notices, which are sealed as other mail."""
    from mta.notices import NoticeWriter

    writer = NoticeWriter(settings.hostname)
    if not any(peer.mail_is_sealed for peer in settings.peers.values()):
        return writer
    from mta.sealing.notices import SealedNotices
    from mta.sealing.seals import seals

    own = seals(router_of(settings), settings.peers.values())
    return writer if own is None else SealedNotices(writer, own)


def _notice(writer: INotices, message: Message) -> Notice | None:
    """The notice of failure for all open recipients, or None."""
    from mta.queue.planning import UNROUTED
    from mta.sync import result_of

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


def print_list(
    settings: Settings, listed: Iterable[Listed], now: float, *, in_json: bool = False
) -> set[str]:
    """Print messages as they are read, below the standing holds.

    `now` is that of the spool.  Returns their ids.
    """
    if in_json:
        found = set()
        for each in listed:
            print_json(messages.summary(each, now))
            found.add(each.id)
        return found
    with pages():
        for line in standing.lines(settings, time.time()):
            print(line)
        return _print_lines(settings, listed, now)


def _print_lines(settings: Settings, listed: Iterable[Listed], now: float) -> set[str]:
    found: set[str] = set()
    paint = painter()
    lines = messages.Lines(now, paint, Situations(settings))
    for each in listed:
        if not found:
            print(paint(messages.HEADING, "bold"))
        found.add(each.id)
        print(lines.of(each))
    if not found:
        print("no messages")
    elif totals := lines.totals():
        print(f"\n{totals}")
    return found


def _complain_of_missing(ids: Collection[str]) -> None:
    if ids:
        raise Failed(f"not in the queue, or not what the filter says: {' '.join(sorted(ids))}")


def _batches(listed: Iterator[Listed]) -> Iterator[list[Listed]]:
    while batch := list(islice(listed, _BATCH_SIZE)):
        yield batch


_HOLD: tuple[str, _Change, str, str] = (
    "hold",
    lambda arguments, tools, ids: tools.hold(ids),
    "put on hold",
    "keep messages until they are released",
)
_CHANGES: Sequence[tuple[str, _Change, str, str]] = (
    _HOLD,
    (
        "release",
        lambda arguments, tools, ids: tools.release(ids),
        "released",
        "let messages on hold go on",
    ),
    ("retry", _retry, "due now", "try messages now"),
    (
        "delete",
        lambda arguments, tools, ids: tools.delete(ids),
        "deleted",
        "remove messages without a notice",
    ),
    ("bounce", _bounce, "bounced", "give messages up, and tell their senders"),
)
