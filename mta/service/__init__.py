"""The plugin behind `twistd mta`, where all parts are joined.

`process` makes the parts that live as long as the process, `configured` those that the
configuration says, again at each reload; `main` starts and stops them all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.python.usage import Options as UsageOptions

if TYPE_CHECKING:  # for the plugin alone, while commands use the checks of this room
    from twisted.application.service import IService


class Options(UsageOptions):
    """The command line of ``twistd mta``."""

    synopsis = "[options] mta [--config FILE]"
    longdesc = "A mail transfer agent whose connections carry mail both ways."
    optParameters: ClassVar = [
        [
            "config",
            "c",
            os.environ.get("MTA_CONFIG", "/etc/mta/mta.yaml"),
            "The configuration file.",
        ]
    ]


def makeService(options: Options) -> IService:
    """Make the service, for Twisted.  Exits with one line for each problem found."""
    try:
        return _made(Path(options["config"]).absolute(), options.parent or {})
    except KeyboardInterrupt:
        raise SystemExit("interrupted while starting") from None


def _made(path: Path, launcher: Mapping[str, Any]) -> IService:
    # What takes a while, here, where it may be interrupted.
    from twisted.internet import reactor  # the outermost place: all others are given it

    from mta import config, privileges
    from mta.service.main import MailService
    from mta.service.steady import use_steady_clock

    try:
        settings = config.load(path)
        privileges.require_no_root(settings, has_uid=launcher.get("uid") is not None)
    except (config.ConfigurationError, privileges.PrivilegeFault) as error:
        raise SystemExit(str(error)) from None
    use_steady_clock(reactor)
    return MailService(path, settings, reactor, launcher)
