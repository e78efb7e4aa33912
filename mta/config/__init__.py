"""The configuration: one YAML file read into `mta.settings`.

`document` makes a file into values that know their line and column, `values` and `hops` say
what a single value may be, `schema` which keys there are, `references` what must fit together.
`edits` changes keys of a file, and leaves the rest of it as its author wrote it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from mta.config.document import ConfigurationError, Problem, Source, parse, read
from mta.config.edits import REMOVED, EditRejected, Edits, Keys, with_edits
from mta.config.schema import read_settings
from mta.files import atomic_write
from mta.settings import Settings

__all__ = [
    "REMOVED",
    "ConfigurationError",
    "EditRejected",
    "Edits",
    "Keys",
    "Problem",
    "edited",
    "load",
    "save",
]


def load(path: Path, environ: Mapping[str, str] = os.environ, *, secrets: bool = True) -> Settings:
    """Read a configuration file.

    With `secrets`, it must be possible to read all that it names: secrets, for which `environ`
    answers ``{env: NAME}``, certificates and keys.  Without, none of it is touched and secrets are
    empty: for who only wants to know where mail goes.  Blocks while it reads.  Raises
    ConfigurationError with every problem found, in the order of the file.
    """
    source = Source(path, environ, secrets)
    return read_settings(parse(read(source), source))


def edited(path: Path, edits: Edits, environ: Mapping[str, str] = os.environ) -> str:
    """Return the text of a configuration file after some edits.

    `edits` are values by the keys that lead to them; `REMOVED` takes a key away.  All else stays
    as it is.  Raises EditRejected where it would be no good configuration, ConfigurationError
    where the file has no place for them, or could not keep its form.
    """
    source = Source(path, environ, secrets=False)
    text = read(source)
    text = with_edits(text, parse(text, source), edits)
    root = parse(text, source)
    try:
        read_settings(root)
    except ConfigurationError as error:
        left = [keys for keys, value in edits.items() if value is not REMOVED]
        raise EditRejected(error.problems, root, left) from None
    return text


def save(path: Path, text: str) -> None:
    """Replace a configuration file; what it was stays as ``FILE~``.

    Its mode and owner stay.  Raises OSError; then the file is as it was.
    """
    before = path.with_name(f"{path.name}~")
    before.unlink(missing_ok=True)
    os.link(path, before)
    atomic_write(path, text.encode(), stat.S_IMODE(path.stat().st_mode))
