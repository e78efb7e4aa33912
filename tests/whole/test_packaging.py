"""What is installed is what a newcomer needs: ``twistd mta``, ``twist mta`` and ``mta``."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from unittest.mock import patch

import yaml
from twisted.trial.unittest import SynchronousTestCase

import mta
from tests.processes import ROOT, Server, configuration, temporary_folder, wait_until

BOB = "bob@office.example"
MESSAGE = b"Subject: x\r\n\r\nbody\r\n"

_SOURCES = (
    *("setup.cfg", "setup.py", "pyproject.toml", "MANIFEST.in", "README.rst", "LICENSE"),
    *("mta", "twisted"),
)
_NOT_FROM_HERE = (
    "mta",
    "mailturn-*",
    "mta_plugin*",
    "dropin.cache",
    "__pycache__",
    "__editable__*",
)
_TWISTD = "from twisted.scripts.twistd import run; run()"


def clean_environment() -> dict[str, str]:
    """The environment without what helps Python find the source tree."""
    left_out = ("PYTHON", "COVERAGE_", "MTA_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return kept | {"PYTHONUNBUFFERED": "1"}


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Run a command as somebody who has no source tree; returns what it printed."""
    ended = subprocess.run(
        command,
        cwd=folder,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise AssertionError(f"{command}: exit status {ended.returncode}\n{ended.stdout}")
    return ended.stdout


@cache
def workshop() -> Path:
    """A folder that is gone when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="mta-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def wheel() -> Path:
    """The wheel, built from a copy of the sources: building leaves things behind."""
    source = workshop() / "source"
    source.mkdir()
    for name in _SOURCES:
        if (ROOT / name).is_dir():
            leave = shutil.ignore_patterns("__pycache__", "dropin.cache")
            shutil.copytree(ROOT / name, source / name, ignore=leave)
        else:
            shutil.copy(ROOT / name, source)
    build = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", source)
    run(build, workshop())
    [built] = workshop().glob("*.whl")
    return built


@cache
def python() -> Path:
    """The interpreter of a fresh environment that the wheel was installed into by pip.

    What the wheel requires is there as links to this environment's files: nothing is downloaded.
    """
    home = workshop() / "home"
    venv.create(home, symlinks=True)
    shutil.copytree(
        sysconfig.get_path("purelib"),
        sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}),
        copy_function=os.symlink,
        ignore=shutil.ignore_patterns(*_NOT_FROM_HERE),
        dirs_exist_ok=True,
    )
    interpreter = home / "bin" / "python"
    run((interpreter, "-m", "pip", "install", "--no-deps", "--no-index", wheel()), workshop())
    return interpreter


class WheelTests(SynchronousTestCase):
    """What is in the wheel."""

    def test_contents(self) -> None:
        """Our package, and in Twisted's namespace the plugin and nothing else."""
        names = zipfile.ZipFile(wheel()).namelist()
        ours = [name for name in names if ".dist-info/" not in name]
        self.assertIn("mta/py.typed", ours)
        self.assertEqual(
            [name for name in ours if not name.startswith("mta/")],
            ["twisted/plugins/mta_plugin.py"],
        )

    def test_every_module_is_there(self) -> None:
        """No folder of ours was forgotten."""
        modules = {str(path.relative_to(ROOT)) for path in (ROOT / "mta").rglob("*.py")}
        self.assertEqual(modules - set(zipfile.ZipFile(wheel()).namelist()), set())

    def test_templates(self) -> None:
        """What `mta init` writes is in it."""
        folder = ROOT / "mta/installation/templates"
        templates = {str(path.relative_to(ROOT)) for path in folder.iterdir()}
        self.assertEqual(templates - set(zipfile.ZipFile(wheel()).namelist()), set())

    def test_nothing_of_an_earlier_build(self) -> None:
        """A module that was removed from the source is not in what is built next."""
        source = workshop() / "source"
        stale = source / "mta" / "stale.py"
        command = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
        wheel()
        self.assertFalse((source / "build").exists())
        for is_there in (True, False):
            stale.touch() if is_there else stale.unlink()
            folder = temporary_folder(self)
            run((*command, "--wheel-dir", folder, source), workshop())
            [built] = folder.glob("*.whl")
            self.assertEqual("mta/stale.py" in zipfile.ZipFile(built).namelist(), is_there)


@cache
def archives(time: float) -> tuple[Path, Path]:
    """A wheel and an archive of the sources, from files that were changed at that time."""
    source, built = workshop() / f"tree-{time}", workshop() / f"built-{time}"
    leave = shutil.ignore_patterns(
        *("__pycache__", "dropin.cache", ".*_cache", ".git", ".venv", ".hypothesis"),
        *("_trial_temp*", "_build", "*.egg-info", "var", "dist", ".coverage*"),
    )
    shutil.copytree(ROOT, source, ignore=leave)
    for path in source.rglob("*"):
        os.utime(path, (time, time))
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", built, source)
    with patch.dict(os.environ, SOURCE_DATE_EPOCH="1700000000"):
        run(command, workshop())
    [wheel], [sources] = built.glob("*.whl"), built.glob("*.tar.gz")
    return wheel, sources


class ArchiveTests(SynchronousTestCase):
    """What is released: a wheel and an archive of the sources."""

    def test_the_same_from_the_same_sources(self) -> None:
        """Wherever and whenever they are built, the archives are equal, octet by octet."""
        for one, other in zip(archives(1.6e9), archives(1.7e9), strict=True):
            self.assertEqual(one.name, other.name)
            self.assertEqual(one.read_bytes(), other.read_bytes(), one.name)

    def test_checked(self) -> None:
        """PyPI would show the description, and the wheel has nothing that does not belong there."""
        built = archives(1.6e9)
        run((sys.executable, "-m", "twine", "check", "--strict", *built), workshop())
        configured = ("--config", ROOT / "pyproject.toml", built[0])
        run((sys.executable, "-m", "check_wheel_contents", *configured), workshop())

    def test_the_sources_are_all_there(self) -> None:
        """Who has the archive of the sources has the tests, the documents and the examples."""
        _, archive = archives(1.6e9)
        with tarfile.open(archive) as file:
            names = {name.partition("/")[2] for name in file.getnames()}
        for path in ("Makefile", "docs/index.rst", "etc/mta.yaml", "bench/__main__.py", ".ci/run"):
            self.assertIn(path, names)
        tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.txt")}
        self.assertEqual(tests - names, set())


class InstalledTests(SynchronousTestCase):
    """What the wheel brings when it is installed, with no source tree about."""

    def server(self, *command: str) -> Server:
        """A server that runs what is installed."""
        return Server(
            self,
            configuration(),
            command=[str(python()), *command],
            environment=clean_environment(),
        )

    def assert_delivers(self, server: Server) -> None:
        """It takes a message in and puts it into a Maildir."""
        server.send(MESSAGE, BOB)
        [delivered] = server.wait_for_mail("office.example/bob")
        self.assertTrue(delivered.endswith(b"\n\nbody\n"), delivered)

    def test_the_plugin_is_found(self) -> None:
        """``twistd --help`` lists us."""
        listing = run((python(), "-c", _TWISTD, "--help"), workshop())
        self.assertRegex(listing, r"(?m)^ +mta +A mail transfer agent")

    def test_version(self) -> None:
        """``mta --version`` says it."""
        program = python().parent / "mta"
        self.assertEqual(run((program, "--version"), workshop()), f"mta {mta.__version__}\n")

    def test_sendmail(self) -> None:
        """``mta-sendmail`` is a program of its own, for others to call."""
        (workshop() / "mta.yaml").write_text(yaml.safe_dump(configuration()))
        program = python().parent / "mta-sendmail"
        self.assertIn("usage: mta-sendmail", run((program, "--help"), workshop()))
        said = run((program, "-C", workshop() / "mta.yaml", "-v", "-f", "a@b", "bob"), workshop())
        self.assertRegex(said, r"\Aqueued as [0-9A-Z]{13}\n\Z")

    def test_help_everywhere(self) -> None:
        """Every command explains itself."""
        program = python().parent / "mta"
        for command in ((), ("check",), ("user",), ("user", "add"), ("queue",), ("queue", "list")):
            self.assertIn("usage: mta", run((program, *command, "--help"), workshop()))
        self.assertIn("--config", run((python(), "-c", _TWISTD, "mta", "--help"), workshop()))

    def test_init(self) -> None:
        """``mta init`` has all that it writes."""
        root = temporary_folder(self)
        program = python().parent / "mta"
        options = ("--root", root, "--program", "/opt/mta/bin", "--yes")
        options += ("--hostname", "mail.example.com", "--mailbox", "alice")
        for role in ("server", "office", "vps"):
            run((program, "init", role, *options, "--domain", "example.com", "--dry-run"), root)
        run((program, "init", "server", *options), root)
        unit = (root / "etc/systemd/system/mta.service").read_text()
        self.assertIn("\nExecStart=/opt/mta/bin/twistd --nodaemon ", unit)

    def test_twistd_in_the_foreground(self) -> None:
        """``twistd --nodaemon mta --config FILE`` serves, and ends well on SIGTERM."""
        server = self.server("-c", _TWISTD, "--nodaemon", "--pidfile=")
        server.start()
        self.assert_delivers(server)
        server.stop()
        self.assertNotIn("Traceback", server.log)

    def test_twist(self) -> None:
        """``twist mta --config FILE`` serves, too."""
        server = self.server("-m", "twisted", "--log-format=text")
        server.start()
        self.assert_delivers(server)
        server.stop()

    def test_twistd_as_a_daemon(self) -> None:
        """``twistd mta`` goes into the background, logs to a file and keeps a pid file."""
        server = self.server()
        pid_file, log = server.folder / "twistd.pid", server.folder / "twistd.log"
        run(
            (
                *(python(), "-c", _TWISTD, "--pidfile", pid_file, "--logfile", log),
                *("mta", "--config", server.config),
            ),
            server.folder,
        )
        pid = int(wait_until(lambda: pid_file.exists() and pid_file.read_text(), "a pid file"))
        try:
            wait_until(lambda: log.exists() and "ready" in log.read_text(), "the log says ready")
        finally:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not pid_file.exists(), "the daemon ends")

    def test_a_bad_configuration_is_one_line(self) -> None:
        """A start that can't be ends with exit status 1 and no traceback."""
        folder = temporary_folder(self)
        (folder / "mta.yaml").write_text("hostname: mail.example\ndomains: {}\nqueu: {}\n")
        command = (str(python()), "-c", _TWISTD, "--nodaemon", "--pidfile=", "mta")
        ended = subprocess.run(
            [*command, "--config", "mta.yaml"],
            cwd=folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(ended.returncode, 1)
        self.assertRegex(ended.stderr, r"mta\.yaml:3:1: unknown key 'queu', did you mean 'queue'")
        self.assertNotIn("Traceback", ended.stderr + ended.stdout)
