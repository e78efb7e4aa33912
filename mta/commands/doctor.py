"""``mta doctor``: whether this installation works, seen from every side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any

from mta.commands.check import report_of
from mta.commands.console import Failed, add_command, add_json, print_json, printable, settings_of
from mta.commands.terminal import painter
from mta.doctor.configuration import results_of
from mta.doctor.result import Result, State
from mta.doctor.sendmail import trial
from mta.privileges import PrivilegeFault, server_account

# The reactor takes a while: it is imported where the examination begins.
if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from mta.commands.console import Subparsers
    from mta.settings import Settings

Line = tuple[str, Result]  # the check that says it, and what it says

CONFIGURATION = "configuration"
SENDMAIL = "sendmail"
_COLOURS = {State.OK: "green", State.UNKNOWN: "blue", State.WARN: "yellow", State.BAD: "red"}


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    summary = "look at files, names, ports, peers and machine, and say what to mend"
    parser = add_command(subparsers, "doctor", _run, summary)
    parser.add_argument("--offline", action="store_true", help="ask no other host")
    parser.add_argument("--fix", action="store_true", help="take rights that others need not have")
    parser.add_argument("--strict", action="store_true", help="fail where there are warnings, too")
    add_json(parser)


def _run(arguments: argparse.Namespace) -> None:
    lines = examination(arguments)
    if arguments.json:
        for check, result in lines:
            print_json(_document(check, result))
    else:
        _print(lines)
    wrong = {State.BAD, State.WARN} if arguments.strict else {State.BAD}
    if count := sum(result.state in wrong for _, result in lines):
        raise Failed(f"{count} thing{'' if count == 1 else 's'} to mend")


def examination(arguments: argparse.Namespace) -> Sequence[Line]:
    """Run all checks; returns what they say.

    Root becomes the server's user on the way: what only root could see would be no news of the
    server.
    """
    from mta.doctor.repairs import repair  # with OpenSSL, which takes a while

    settings = settings_of(arguments, secrets=True, keep_root=True)
    account = None
    with suppress(PrivilegeFault):
        account = server_account(settings)
    results = list(repair(arguments.config, settings, account)) if arguments.fix else []
    report = report_of(arguments.config, account)
    results += results_of(report.errors, report.warnings)
    tried = trial(arguments.config)
    settings_of(arguments)
    lines = [(CONFIGURATION, result) for result in results]
    lines += [(SENDMAIL, tried)]
    return [*lines, *_examined(settings, offline=arguments.offline)]


def _examined(settings: Settings, *, offline: bool) -> Sequence[Line]:
    """Run the reactor until all checks are through."""
    from twisted.internet.task import react

    lines: list[Line] = []
    failures: list[Failure] = []

    def look(reactor: Any) -> Deferred[None]:
        from twisted.internet.defer import Deferred

        from mta.doctor.examination import examine
        from mta.doctor.probe import examined_by
        from mta.service.steady import use_steady_clock

        use_steady_clock(reactor)

        async def collect() -> None:
            examined = examined_by(reactor, settings)
            for check, results in await examine(examined, reactor, offline=offline):
                lines.extend((check.id, result) for result in results)

        return Deferred.fromCoroutine(collect()).addErrback(failures.append)

    with suppress(SystemExit):  # react ends with it, always
        react(look)
    for failure in failures:
        failure.raiseException()
    return lines


def _print(lines: Sequence[Line]) -> None:
    paint = painter()
    for group, members in groupby(lines, key=lambda line: line[0].partition(".")[0]):
        print(paint(group, "bold"))
        for _, result in members:
            state = paint(f"{result.state.value:7}", _COLOURS[result.state])
            print(f"  {state}  {printable(result.text)}")
            if result.remedy and result.state is not State.OK:
                print(f"  {'':7}  -> {printable(result.remedy)}")
    counts = {state: sum(result.state is state for _, result in lines) for state in State}
    print(", ".join(f"{count} {state.value}" for state, count in counts.items() if count))


def _document(check: str, result: Result) -> dict[str, str]:
    return {
        "check": check,
        "state": result.state.value,
        "text": result.text,
        "remedy": result.remedy,
        "docs": f"doctor.html#{check.replace('.', '-')}",
    }
