"""The files that ``mta init`` writes, with gaps for what differs.

They lie in the folder ``templates`` of the package.  A gap is ``@NAME@``; one that is a line of its
own, and gets nothing, is gone with its line and the empty lines before it.
"""

from __future__ import annotations

import re
from importlib import resources

_GAP = re.compile(r"@([A-Z_]+)@")
_LINE = re.compile(r"(\n*)^@([A-Z_]+)@\n", re.MULTILINE)


def filled(name: str, **values: str) -> str:
    """Return the text of a template with its gaps filled."""
    text = (resources.files("mta.installation") / "templates" / name).read_text("utf-8")

    def line(match: re.Match[str]) -> str:
        value = values[match[2]]
        return f"{match[1]}{value}\n" if value else ("\n" if match[1] else "")

    return _GAP.sub(lambda match: values[match[1]], _LINE.sub(line, text))
