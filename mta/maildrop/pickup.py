"""Taking what lies in the maildrop into the spool.

Any user may have put it there: nothing in it is believed, no link is followed, the files of one
user do not keep those of others waiting, and what is no message does no harm.  A crash between
commit and removal takes a message in once more; no crash loses one.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mta.files import closed_on_error, make_folder
from mta.interfaces import IInspector, IPickedUpMail, ISpool
from mta.mail import Envelope
from mta.maildrop import batch, published
from mta.maildrop.batch import Malformed
from mta.maildrop.drop import FOLDER
from mta.maildrop.local_mail import LocalMail
from mta.queued import Message
from mta.session import LOCAL_ADDRESS, Origin
from mta.settings import DAY, Settings
from mta.smtp import trace
from mta.smtp.content import LineCheck
from mta.smtp.header import HeaderSection

MAX_OF_USER = 50  # messages of one user that a pass takes: the others come in between
KEEP_JUNK = 7 * DAY  # seconds that stay what is no message, and what was never completed
PIECE = 256 * 1024  # octets that are read at once
PAUSE = 60.0  # seconds until a message is tried again that was not to be had, or not let in
IDLE_SHARE = 20  # times as long as a look takes, until the next one
BAD = ".bad"  # behind the name of what is no message

T = TypeVar("T")

OPEN, CLOSED = 0o1733, 0o700  # every user may put files there, and only we see which there are
_LOOPBACK = ip_address("127.0.0.1")
_NAME = re.compile("[0-9a-f]{32}")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Of what its owner made so: a link, a lease on it, one that is not to be read, a socket.
_NO_FILE = {errno.ELOOP, errno.EAGAIN, errno.EACCES, errno.EPERM, errno.ENXIO}


class _Later(Exception):
    """A message can't be taken now.

    It has the reason, unless an inspector said so.
    """


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A file that may be a message."""

    path: Path
    userid: int


class Pickup:
    """Takes messages from the maildrop of a spool, one after the other.

    `mail` takes over what is committed; `in_thread` calls a function that blocks.
    """

    log = Logger()

    def __init__(
        self,
        folder: Path,
        spool: ISpool,
        mail: IPickedUpMail,
        in_thread: Callable[..., Deferred[Any]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._spool = spool
        self._mail = mail
        self._in_thread = in_thread
        self._now = now
        self._settings: Settings | None = None  # those that the folder was made by
        self._rest_until = 0.0
        self._inspectors: Sequence[IInspector] = ()
        self._done: set[Path] = set()  # taken, and not to be removed, for whatever reason
        self._refused: dict[Path, float] = {}  # for now, and when to try again
        self._last_error = ""

    async def run(self, settings: Settings, inspectors: Sequence[IInspector] = ()) -> None:
        """Take what is there, up to `MAX_OF_USER` messages of each user."""
        self._inspectors = inspectors
        if time.monotonic() < self._rest_until:
            return
        try:
            await self._prepare(settings)
            began = time.monotonic()
            waiting = await self._in_thread(_look, self._folder / FOLDER, self._now())
            self._rest_until = time.monotonic() + IDLE_SHARE * (time.monotonic() - began)
            paths = {each.path for each in waiting}
            self._refused = {path: end for path, end in self._refused.items() if path in paths}
            await self._remove_done(paths)
            await self._take_all([each for each in waiting if self._is_due(each.path)])
        except OSError as error:
            self._tell(str(error))
        else:
            self._last_error = ""

    async def prepare(self, settings: Settings) -> None:
        """Make the folder, and open it where mail may be left."""
        try:
            await self._prepare(settings)
        except OSError as error:
            self._tell(str(error))

    async def _prepare(self, settings: Settings) -> None:
        if settings is not self._settings:
            await self._in_thread(_make_folder, self._folder, settings)
            self._settings = settings

    async def _take_all(self, waiting: list[_Waiting]) -> None:
        """Take all files in.

        Raises OSError where the spool takes nothing now; the rest then stays.
        """
        junk: dict[int, list[str]] = {}
        unread: list[str] = []
        for each in waiting:
            try:
                await self._take(each)
            except FileNotFoundError:
                continue  # who left it has taken it back
            except _Later as later:
                self._refused[each.path] = time.monotonic() + PAUSE
                unread += (f"{each.path}: {reason}" for reason in later.args)
            except Malformed as error:
                await self._in_thread(_set_aside, each.path)
                junk.setdefault(each.userid, []).append(str(error))
        if unread:
            self.log.warn(
                "maildrop: {count} message(s) can't be read, and wait: {reason}",
                count=len(unread),
                reason=unread[0],
            )
        self._tell_junk(junk)

    def _tell_junk(self, junk: Mapping[int, Sequence[str]]) -> None:
        for userid, reasons in junk.items():
            self.log.warn(
                "maildrop: {count} file(s) of userid {userid} are no messages, and stay for a week"
                " as {folder}/*{ending}: {reason}",
                count=len(reasons),
                userid=userid,
                folder=str(self._folder / FOLDER),
                ending=BAD,
                reason=reasons[0],
            )

    async def _take(self, waiting: _Waiting) -> None:
        """Raises Malformed, OSError, or _Later."""
        file, userid = await self._read(_open, waiting.path)
        try:
            envelope = await self._read(batch.read_envelope, file)
            origin = Origin(LOCAL_ADDRESS, user=str(userid), service="maildrop")
            message = await self._taken(file, envelope, origin)
        finally:
            file.close()
        if message is not None:
            self._mail.picked_up(message, userid)
        try:
            await self._in_thread(waiting.path.unlink, True)
        except OSError:
            self._done.add(waiting.path)
            raise

    async def _remove_done(self, there: Collection[Path]) -> None:
        """Remove what was taken, and could not be removed.  Raises OSError."""
        self._done.intersection_update(there)
        for path in list(self._done):
            await self._in_thread(path.unlink, True)
            self._done.discard(path)

    async def _read(self, function: Callable[..., T], *arguments: object) -> T:
        """Read of the file of one message, which keeps no other.

        Raises Malformed, FileNotFoundError, or _Later.
        """
        try:
            read: T = await self._in_thread(function, *arguments)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _Later(error.strerror or str(error)) from None
        return read

    async def _taken(self, file: BinaryIO, envelope: Envelope, origin: Origin) -> Message | None:
        """Put the message into the spool; None: an inspector discarded it.

        Raises Malformed, OSError, or _Later.
        """
        assert self._settings is not None
        draft, section = self._spool.draft(), HeaderSection()
        draft.address(envelope)
        mail = LocalMail(self._inspectors, self._settings.hostname)
        try:
            async for piece in self._content(file, self._settings.limits.message_size):
                was_complete = section.complete
                body = section.feed(piece)
                if section.complete and not was_complete:
                    await mail.begin(draft.id, envelope, origin, section.octets)
                if body:
                    await mail.body(body)
                    await draft.write(body)
            if not section.complete:
                await mail.begin(draft.id, envelope, origin, section.octets)
            own = self._trace(int(origin.user), draft.id)
            inspected = await mail.end(own, section.octets, envelope)
            if mail.refusal is not None and mail.refusal.reply.is_transient:
                raise _Later
            if inspected.discard:
                inspected.discard_body()
                draft.discard()
                return None
            if inspected.body is not None:
                await draft.replace(inspected.body)
            return await self._spool.commit(
                draft, inspected.envelope, inspected.header, origin, inspected.hold
            )
        except BaseException:
            draft.discard()
            raise
        finally:
            mail.close()

    async def _content(self, file: BinaryIO, most: int) -> Any:
        """The pieces of the content.  Raises Malformed or _Later."""
        check, size = LineCheck(), 0
        while piece := await self._read(file.read, PIECE):
            size += len(piece)
            if size > most:
                raise Malformed(f"more than {most} octets, which is the limit here")
            check.feed(piece)
            yield piece
        check.end()
        if check.broken:
            raise Malformed("a line that does not end in CRLF, or a NUL")

    def _is_due(self, path: Path) -> bool:
        return path not in self._done and self._refused.get(path, 0.0) <= time.monotonic()

    def _trace(self, userid: int, queue_id: str) -> bytes:
        assert self._settings is not None
        date = trace.date(int(self._now()))
        by = trace.by(self._settings.hostname, self._settings.node)
        return (f"Received: {by} (from userid {userid}) id {queue_id};\r\n\t{date}\r\n").encode()

    def _tell(self, error: str) -> None:
        """Say it once."""
        if error != self._last_error:
            self._last_error = error
            self.log.warn("maildrop: {error}", error=error)


# --- in a thread -----------------------------------------------------------------------


def _make_folder(spool: Path, settings: Settings) -> None:
    """Make the folder.  It is open where users of this host may send without a log-in."""
    is_open = any(
        _LOOPBACK in network for network in settings.relay.networks if network.version == 4
    )
    folder = spool / FOLDER
    make_folder(folder, CLOSED)
    if folder.is_symlink():
        raise NotADirectoryError(20, "a link, where a folder must be", str(folder))
    folder.chmod(OPEN if is_open else CLOSED)
    if is_open:
        published.publish(spool, settings)
        spool.chmod(stat.S_IMODE(spool.stat().st_mode) | 0o011)  # to be passed through, not listed


def _look(folder: Path, now: float) -> list[_Waiting]:
    """Return what may be messages, some of each user.  Old junk is removed."""
    found: dict[int, list[_Waiting]] = {}
    for entry, status in _entries(folder):
        path = Path(entry.path)
        if stat.S_ISREG(status.st_mode) and _NAME.fullmatch(entry.name):
            own = found.setdefault(status.st_uid, [])
            if len(own) < MAX_OF_USER:
                own.append(_Waiting(path, status.st_uid))
        elif now - status.st_ctime > KEEP_JUNK:  # a time that no user can choose
            with suppress(OSError):
                (path.rmdir if stat.S_ISDIR(status.st_mode) else path.unlink)()
    return [each for own in found.values() for each in own]


def _entries(folder: Path) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                yield entry, entry.stat(follow_symlinks=False)


def _open(path: Path) -> tuple[BinaryIO, int]:
    """A file that lies there alone, and whose it is.  Raises Malformed or OSError."""
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise Malformed(error.strerror or "can't be opened") from None
    with closed_on_error(descriptor):
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise Malformed("not a file, or one with other names")
        return os.fdopen(descriptor, "rb"), status.st_uid


def _set_aside(path: Path) -> None:
    """Keep it under a name by which it is not taken again.  Raises OSError."""
    try:
        path.rename(path.with_name(path.name + BAD))
    except IsADirectoryError:  # something has that name: its owner wants it so
        path.unlink(missing_ok=True)
