"""The form of a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mta.settings import Settings

Keys = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for the operator, and the keys of its setting.

    Where it `is_fatal`, the server does not start.
    """

    keys: Keys
    text: str
    is_fatal: bool = False


Check = Callable[[Settings], Iterator[Finding]]
