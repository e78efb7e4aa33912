"""The origin of a message as JSON, as its row has it.

It has what is known, and is empty for mail of older versions.
"""

from __future__ import annotations

import json
from dataclasses import fields
from functools import lru_cache

from mta.session import UNKNOWN_ORIGIN, Origin

_KINDS = {field.name: type(getattr(UNKNOWN_ORIGIN, field.name)) for field in fields(Origin)}


@lru_cache(maxsize=256)  # a client brings many messages
def encoded(origin: Origin) -> str:
    """Return the origin as JSON, without what is not known."""
    known = {name: value for name in _KINDS if (value := getattr(origin, name))}
    return json.dumps(known)


@lru_cache(maxsize=256)
def decoded(text: str) -> Origin:
    """Return the origin that a row has.  Raises ValueError where it can't be one.

    What a later version added to it is left out.
    """
    known = json.loads(text or "{}")
    if not isinstance(known, dict):
        raise ValueError(f"its origin is {text!r}")
    values = {name: value for name, value in known.items() if name in _KINDS}
    if not all(type(value) is _KINDS[name] for name, value in values.items()):
        raise ValueError(f"its origin is {text!r}")
    return Origin(**values)
