"""The configuration: one YAML file read into `mta.settings`.

`document` turns a file into values that know their line and column, `values` and `hops` say
what a single value may be, `schema` which keys there are, `references` what must fit together.
`additions` puts more into a file, and leaves the rest of it to whoever wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mta.config.additions import Keys, Misfit, with_additions
from mta.config.document import ConfigurationError, Problem, Source, parse, read
from mta.config.schema import read_settings
from mta.settings import Settings

__all__ = ["ConfigurationError", "Keys", "Misfit", "Problem", "extended", "load"]


def load(path: Path, environ: Mapping[str, str] = os.environ, *, secrets: bool = True) -> Settings:
    """Read a configuration file.

    With `secrets`, it must be possible to read all that it names: secrets, for which `environ`
    answers ``{env: NAME}``, certificates and keys.  Without, none of it is touched and secrets are
    empty: for who only wants to know where mail goes.  Blocks while it reads.  Raises
    ConfigurationError with every problem found, in the order of the file.
    """
    source = Source(path, environ, secrets)
    return read_settings(parse(read(source), source))


def extended(
    path: Path, additions: Mapping[Keys, Any], environ: Mapping[str, str] = os.environ
) -> str:
    """The text of a configuration file with more in it: values by the keys that lead to them.

    Raises Misfit where it would be no good configuration, ConfigurationError where there is no
    place for them.
    """
    source = Source(path, environ, secrets=False)
    text = read(source)
    text = with_additions(text, parse(text, source), additions)
    root = parse(text, source)
    try:
        read_settings(root)
    except ConfigurationError as error:
        raise Misfit(error.problems, root, additions) from None
    return text
