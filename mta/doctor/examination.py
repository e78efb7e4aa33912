"""The table of checks, and the examination that runs them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.doctor import (
    authentication,
    certificates,
    far,
    lists,
    machine,
    mail,
    names,
    peers,
    ports,
    resolution,
    service,
    transport,
)
from mta.doctor.examined import Examined
from mta.doctor.result import Result, unknown
from mta.files import in_words
from mta.interfaces import DomainNotFound, ResolutionFailed

CHECK_TIMEOUT = 5.0  # seconds: for each question that a check asks of another host
LONG_TIMEOUT = 15.0  # seconds: where TLS and a log-in come first, or a record leads to others

_log = Logger()

CheckFunction = Callable[[Examined], AsyncIterator[Result]]


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its name, what is right then, and its function.

    `asks_outside`: other hosts are asked, as ``--offline`` forbids.
    """

    id: str
    purpose: str
    look: CheckFunction
    asks_outside: bool = False
    timeout: float = CHECK_TIMEOUT


CHECKS: Sequence[Check] = (
    Check("names.resolver", "the name servers tell the truth", resolution.resolver, True),
    Check("names.host", "the host's name leads to it", names.own_name, True),
    Check("names.reverse", "its addresses lead back to its name", names.reverse_names, True),
    Check("names.exchangers", "mail for our domains is sent here", names.exchangers, True),
    Check(
        "names.policies",
        "SPF and DMARC let our mail pass",
        authentication.policies,
        True,
        LONG_TIMEOUT,
    ),
    Check("names.keys", "DKIM keys are published", authentication.keys, True),
    Check(
        "names.transport",
        "MTA-STS and TLSRPT are whole",
        transport.transport,
        True,
        LONG_TIMEOUT,
    ),
    Check("names.lists", "block lists, allow lists are sound", lists.lists, True),
    Check("ports.listeners", "each listener answers", ports.listeners, False, LONG_TIMEOUT),
    Check("ports.outgoing", "port 25 of others can be reached", ports.outgoing, True, LONG_TIMEOUT),
    Check("ports.relaying", "strangers can't relay", ports.relaying, True, LONG_TIMEOUT),
    Check("tls.files", "certificates hold, for our names", certificates.files),
    Check("tls.shown", "each listener shows them", certificates.shown, False, LONG_TIMEOUT),
    Check("tls.records", "TLSA records are theirs", certificates.associations, True),
    Check("peers.dialled", "peers that we dial let us in", peers.dialled, True, LONG_TIMEOUT),
    Check("peers.exchanges", "exchanges with them go well", peers.exchanges),
    Check("peers.dialling-in", "peers that dial in were here", peers.dialling_in),
    Check("peers.etrn", "those with etrn can be dialled", peers.called_back, True, LONG_TIMEOUT),
    Check("far.answers", "peers that we dial see us as we do", far.answers, True, LONG_TIMEOUT),
    Check("far.ports", "the world can reach their hosts", far.ports, True, LONG_TIMEOUT),
    Check("far.relaying", "those relay for no stranger", far.relaying, True, LONG_TIMEOUT),
    Check("far.senders", "notices and forwards may leave", far.senders, True, LONG_TIMEOUT),
    Check("far.told", "peers that dial in saw no fault here", far.told),
    Check("peers.bans", "no peer is banned", peers.bans),
    Check("mail.roles", "postmaster and abuse are there", mail.roles),
    Check("mail.maildrop", "programs of all users can send mail", mail.maildrop),
    Check("machine.disk", "there is room for mail", machine.disk),
    Check("machine.spool", "the spool is sound", machine.spool),
    Check("machine.clock", "the clock is right", machine.clock),
    Check("machine.service", "the server runs, and will", service.running),
    Check("machine.unit", "its unit is as shipped", service.unit),
)


def examine(
    examined: Examined,
    clock: IReactorTime,
    *,
    offline: bool = False,
    checks: Sequence[Check] = CHECKS,
) -> Awaitable[Sequence[tuple[Check, Sequence[Result]]]]:
    """Run these checks at once.

    Peers are told what was seen of them.  Returns the results of each, in their order.
    """
    return Deferred.fromCoroutine(_examine(examined, clock, checks, offline=offline))


async def _examine(
    examined: Examined, clock: IReactorTime, checks: Sequence[Check], *, offline: bool
) -> Sequence[tuple[Check, Sequence[Result]]]:
    running = [
        Deferred.fromCoroutine(_look(check, examined, clock, offline=offline)) for check in checks
    ]
    found: Sequence[tuple[Check, Sequence[Result]]] = await gatherResults(
        running, consumeErrors=True
    )
    if any(check.look is far.ports for check in checks):  # else there is little to tell
        await far.tell(examined, [result for _, results in found for result in results])
    return found


async def _look(
    check: Check, examined: Examined, clock: IReactorTime, *, offline: bool
) -> tuple[Check, Sequence[Result]]:
    if check.asks_outside and offline:
        return check, ()
    results: list[Result] = []
    looking = Deferred.fromCoroutine(_collect(check, examined, results))
    try:
        await looking.addTimeout(check.timeout, clock)
    except TimeoutError:
        results.append(unknown(f"no answer within {check.timeout:.0f} seconds", "try again"))
    except (ResolutionFailed, DomainNotFound) as error:
        results.append(unknown(f"the name servers give no answer: {error}", "try again"))
    except CancelledError:
        raise
    except OSError as error:
        results.append(unknown(in_words(error), "call mta doctor as root"))
    except Exception:  # noqa: BLE001 - a bug in one check must not hide the others
        _log.failure("the check {check} failed", check=check.id)
        results.append(unknown("the check itself failed: this is a fault of the program"))
    return check, results


async def _collect(check: Check, examined: Examined, results: list[Result]) -> None:
    async for result in check.look(examined):
        results.append(result)
