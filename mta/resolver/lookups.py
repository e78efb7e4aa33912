"""Look-ups under way: one for each question, a bounded number."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from mta.dns_answer import Answer
from mta.interfaces import ResolutionFailed
from mta.resolver.cache import Cache, Question, Timed
from mta.resolver.chain import Chain, TooManyAliases
from mta.resolver.name_servers import NameServers, NoAnswer
from mta.resolver.names import to_name, to_text
from mta.resolver.response import Response

MAX_QUERIES = 100  # at once: each has a socket
MAX_SECONDS = 60  # for a look-up: two servers can be silent at each try


class Lookups:
    """Asks the name servers, along aliases, what is not in the cache."""

    log = Logger()

    def __init__(self, servers: NameServers, cache: Cache, clock: Any) -> None:
        self._servers = servers
        self._cache = cache
        self._clock = clock
        self._places = DeferredSemaphore(MAX_QUERIES)
        self._waiting: dict[Question, list[Deferred[Answer]]] = {}

    async def answer(self, question: Question) -> Answer:
        """The answer to a question.  Raises ResolutionFailed.

        A look-up goes on when this is cancelled: others may wait for it, now or in a moment.
        """
        remembered = self._cache.get(question)
        if remembered is not None:
            return remembered
        answered: Deferred[Answer] = Deferred()
        if question in self._waiting:
            self._waiting[question].append(answered)
        else:
            self._waiting[question] = [answered]
            looking = Deferred.fromCoroutine(self._look_up(question))
            looking.addTimeout(MAX_SECONDS, self._clock)
            looking.addCallbacks(
                self._tell, self._tell_failure, callbackArgs=(question,), errbackArgs=(question,)
            )
        return await answered

    async def _look_up(self, question: Question) -> Timed:
        octets, kind = question
        chain = Chain(to_name(octets), kind)
        while True:
            name = to_text(chain.name)
            try:
                found = chain.follow(await self._query(chain))
            except NoAnswer as error:
                raise ResolutionFailed(f"{name}: {error}") from error
            except TooManyAliases as error:
                raise ResolutionFailed(f"{name}: too many aliases") from error
            if found is not None:
                return found

    async def _query(self, chain: Chain) -> Response:
        await self._places.acquire()
        try:
            return await self._servers.ask(chain.name, chain.wire_type)
        finally:
            self._places.release()

    def _tell(self, timed: Timed, question: Question) -> None:
        self._cache.put(question, timed)
        for answered in self._waiting.pop(question):
            answered.callback(timed.answer)

    def _tell_failure(self, failure: Failure, question: Question) -> None:
        name = question[0].decode()
        if failure.check(ResolutionFailed):
            reason = str(failure.value)
        elif failure.check(TimeoutError):
            reason = f"{name}: no answer within {MAX_SECONDS} seconds"
        else:
            self.log.failure("the look-up of {name} failed", failure, name=name)
            reason = f"{name}: a fault of our own"
        for answered in self._waiting.pop(question):
            answered.errback(ResolutionFailed(reason))
