"""The plan of each role, from the first folder to the start."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mta.config import edited
from mta.installation import certificate
from mta.installation.accounts import DovecotUsers, LogIn, ServerAccount, ServerUsers
from mta.installation.additions import additions
from mta.installation.answers import Answers, Role
from mta.installation.changes import Desired, Folder, Link, TextFile
from mta.installation.configuration import Configuration, Options
from mta.installation.dovecot import SOCKET, USERS, Dovecot
from mta.installation.filling import filled
from mta.installation.host import Host
from mta.installation.interfaces import IChange, State
from mta.installation.places import Owner, Places
from mta.installation.plan import Plan
from mta.installation.signing import SigningKey, installed, keys_of
from mta.installation.systemd import Systemd, user_unit
from mta.installation.wishes import Wishes
from mta.settings import DKIMKey, Listener, Settings
from mta.signing.making import FOLDER

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # of a fresh Debian
LINKS = Path("/usr/local/bin")
SENDMAIL = Path("/usr/sbin/sendmail")
LOGROTATE = Path("/etc/logrotate.d/mta")
COMPLETIONS = {
    "bash": Path("/usr/local/share/bash-completion/completions/mta"),
    "zsh": Path("/usr/local/share/zsh/site-functions/_mta"),
    "fish": Path("/usr/local/share/fish/vendor_completions.d/mta.fish"),
}
DOVECOT = f"dovecot:{SOCKET}"  # as `users`
PROGRAMS = ("mta", "mta-sendmail")


@dataclass(frozen=True, slots=True)
class Installation:
    """An installation of a role, and the plan to make it."""

    role: Role
    answers: Answers
    places: Places
    wishes: Wishes
    host: Host
    present: Settings | None = None

    @property
    def systemd(self) -> Systemd:
        """The systemd that the server is to be a unit of."""
        return Systemd(self.places)

    @property
    def configuration(self) -> Configuration:
        """The configuration of the role, with these answers."""
        options = Options(
            has_ipv6=self.host.has_ipv6,
            separates_families=self.host.separates_families,
            has_certificate=self._live is not None,
            users=DOVECOT if self.has_dovecot else "users.yaml",
            log_file=self.wishes.log_file,
            dkim=self._present_keys | self._new_keys,
        )
        return Configuration(self.role, self.answers, self.places, options)

    @property
    def has_dovecot(self) -> bool:
        """True where Dovecot is set up beside the server."""
        dovecot = Dovecot(self.places)
        if not self.places.is_system or self.wishes.dovecot is not None:
            return self.places.is_system and bool(self.wishes.dovecot)
        if self.present is not None:
            return self.present.users == DOVECOT
        return self.role is Role.OFFICE and dovecot.is_installed and dovecot.is_untouched

    def plan(self) -> Plan:
        """Return the plan.  Raises OSError or ChangeFailed."""
        if self.role is Role.DEMO:
            return Plan([*self._folders(), *self._demo_user(), *self._config()])
        if not self.places.is_system:
            return Plan([*self._mail(), *self._user_unit()])
        held = self._held_ports()
        changes = [ServerAccount(self.places), *self._mail(), *self._links()]
        changes += self.systemd.units(self._listeners, replaces=self.wishes.replaces)
        changes += self._logrotate()
        if self.has_dovecot:
            dovecot = Dovecot(self.places)
            changes += dovecot.changes(self.systemd, replaces=self.wishes.replaces)
        if self.systemd.is_running and self.wishes.starts and not held:
            changes += self._start()
        return Plan(changes, [*held, *self._remarks()])

    def _remarks(self) -> Iterator[str]:
        is_open = self.wishes.dovecot is None and self.present is None
        has_another = Dovecot(self.places).is_installed and not self.has_dovecot
        if self.role is Role.OFFICE and is_open and has_another:
            yield "Dovecot is set up already and stays so: --dovecot gives it our Maildirs"

    # --- the parts of a plan -------------------------------------------------------------

    def _mail(self) -> Iterator[IChange]:
        """The changes that the server itself needs, its configuration last."""
        yield from self._folders()
        yield from self._users()
        yield from self._certificate()
        yield from self._signing_keys()
        yield from self._config()

    def _folders(self) -> Iterator[IChange]:
        places = self.places
        if not places.is_system:
            yield Folder(places, places.state, Owner(), 0o700)
        if places.etc != places.state:
            yield Folder(places, places.etc, places.shown_to_server, 0o750)
        yield Folder(places, places.spool, places.servers, 0o700)
        if self.wishes.log_file:
            folder = Path(self.wishes.log_file).parent
            if folder.name == "mta" or not places.is_system:  # others are not for us to give away
                yield Folder(places, folder, places.servers, 0o750)
        if not self.answers.deliver:
            for domain in self.answers.domains:
                yield Folder(places, places.mail / domain, places.servers, 0o750)

    def _users(self) -> Iterator[IChange]:
        # Where there is a configuration, users who are missing were removed by a person.
        is_first = self.present is None or (self.has_dovecot and self.present.users != DOVECOT)
        for name, addresses in self.answers.users.items():
            if not is_first and name not in self.wishes.users:
                continue
            if self.has_dovecot:
                users = DovecotUsers(self.places, USERS)
                for address in addresses:
                    yield LogIn(users, address, [address])
            else:
                yield LogIn(ServerUsers(self.places), name, addresses)

    @property
    def _present_keys(self) -> dict[str, Sequence[DKIMKey]]:
        """The keys of each domain in the configuration."""
        present = self.present.domains if self.present is not None else {}
        return {
            name: [installed(self.places, key) for key in domain.dkim]
            for name, domain in present.items()
        }

    @property
    def _new_keys(self) -> dict[str, Sequence[DKIMKey]]:
        """The keys of each domain that the configuration does not have yet."""
        present = self.present.domains if self.present is not None else {}
        return {
            name: keys_of(self.places, name)
            for name in self.answers.domains
            if name not in present and self.role is not Role.DEMO
        }

    def _signing_keys(self) -> Iterator[IChange]:
        keys = self._new_keys
        if keys:
            folder = self.places.etc / FOLDER
            yield Folder(self.places, folder, self.places.shown_to_server, 0o750)
        for name, each in keys.items():
            for key in each:
                yield SigningKey(self.places, name, key.file)

    def _demo_user(self) -> Iterator[IChange]:
        if self.present is None:
            yield LogIn(ServerUsers(self.places), "alice", ["alice@demo.example"])

    @property
    def _has_another_pair(self) -> bool:
        """True where the configuration names a certificate that is not our copy."""
        pair = self.present.tls.pair if self.present is not None else None
        return pair is not None and pair.certificate != self.places.etc / certificate.COPIES[0]

    @property
    def _live(self) -> Path | None:
        """Certbot's folder with our certificate, if it is to be used."""
        if not (self.places.is_system and self.places.is_this_host) or self._has_another_pair:
            return None
        return certificate.certbot_folder(self.answers.hostname)

    def _certificate(self) -> Iterator[IChange]:
        if self._live is None:
            if self.present is None or self.present.tls.pair is None:
                yield certificate.SelfSigned(self.places, self.answers.hostname)
            return
        text = filled(
            "certbot-hook",
            LIVE=str(self._live),
            ETC=str(self.places.etc),
            USER=self.places.user,
        )
        yield self._file(certificate.HOOK, text, 0o755)
        yield certificate.CertbotCopy(self.places, self._live)

    def _config(self) -> Iterator[IChange]:
        config, replaces = self.places.config, self.wishes.replaces
        text, owner, mode = self.configuration.text(), self.places.shown_to_server, 0o640
        path = self.places.now(config)
        if self.present is not None and not replaces and self.role is not Role.DEMO:
            edits = additions(self.present, self.configuration)
            text = edited(path, edits)
            owner, mode, replaces = Owner(), stat.S_IMODE(path.stat().st_mode), bool(edits)
        yield TextFile(self.places, Desired(config, text, owner, mode), replaces=replaces)

    def _links(self) -> Iterator[IChange]:
        for name in PROGRAMS:
            if not self._is_on_path(name):
                target = self.places.program / name
                yield Link(self.places, LINKS / name, target, f"call {target}")
        if self.wishes.has_sendmail:
            divert = f"dpkg-divert --local --rename --add {SENDMAIL}, then again"
            target = self.places.program / "mta-sendmail"
            yield Link(self.places, SENDMAIL, target, divert)
        for shell, path in COMPLETIONS.items():
            if script := self.wishes.completions.get(shell):
                yield self._file(path, script)

    def _is_on_path(self, name: str) -> bool:
        folders = [self.places.now(Path(folder)) for folder in PATH.split(":")]
        link = self.places.now(LINKS / name)
        found = shutil.which(name, path=os.pathsep.join(map(str, folders)))
        return found is not None and Path(found) != link

    def _logrotate(self) -> Iterator[IChange]:
        if self.wishes.log_file:
            log, user = self.wishes.log_file, self.places.user
            yield self._file(LOGROTATE, filled("logrotate", LOG=log, USER=user))

    def _user_unit(self) -> Iterator[IChange]:
        if has_user_systemd():
            path = self.places.etc.parent / "systemd/user/mta.service"
            yield self._file(path, user_unit(self.places))

    def _file(self, path: Path, text: str, mode: int = 0o644) -> IChange:
        desired = Desired(path, text, self.places.roots, mode)
        return TextFile(self.places, desired, replaces=self.wishes.replaces)

    @property
    def _listeners(self) -> Sequence[Listener]:
        """The listeners of the configuration as it will be."""
        if self.present is None or self.wishes.replaces:
            return self.configuration.settings().listen
        return self.present.listen

    def _start(self) -> Iterator[IChange]:
        is_changed = any(change.state() is State.NEEDED for change in self._config())
        return self.systemd.start(self._listeners, is_changed=is_changed)

    def _held_ports(self) -> list[str]:
        """A line for each program that listens where the server is to."""
        if not self.places.is_this_host:
            return []
        return self.host.in_the_way(self.configuration.ports, sockets=self.systemd.has_sockets)


def has_user_systemd() -> bool:
    """Tell whether this user has a systemd."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return bool(runtime) and (Path(runtime) / "systemd").is_dir()


def program_folder(executable: str) -> Path | None:
    """The folder in which this installation's programs are, beside the interpreter."""
    folder = Path(executable).parent
    return folder if (folder / "twistd").exists() else None


def why_unreachable(program: Path, executable: str) -> str:
    """The reason why the server's user can't run the programs, or nothing."""
    for path in (program / "twistd", Path(executable).resolve()):
        is_hidden = any(not folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
        if is_hidden or path.is_relative_to("/home"):  # which the unit hides from the server
            return (
                f"the server's user can't run {path}: install it elsewhere, with /usr/bin/python3"
                " -m venv /opt/mta && /opt/mta/bin/pip install mailturn"
            )
    return ""
