"""The configuration: one YAML file read into `mta.settings`.

`document` turns a file into values that know their line and column, `values` and `hops` say
what a single value may be, `schema` which keys there are, `references` what must fit together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mta.config.document import ConfigurationError, Problem, Source, parse
from mta.config.schema import read_settings
from mta.settings import Settings

__all__ = ["ConfigurationError", "Problem", "load"]


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read a configuration file, and see that the files it names can be read.

    `environ` answers ``{env: NAME}``.  Blocks while it reads.  Raises ConfigurationError with
    every problem found, in the order of the file.
    """
    return read_settings(parse(Source(path, environ)))
