"""The result of one signature (RFC 8601 section 2.7.1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique


@unique
class ResultCode(Enum):
    """The word for a result in Authentication-Results.

    POLICY is for a signature that we do not accept, whether or not it is right: SHA-1, keys that
    are too short, and ``l=`` with more of a body than it covers.  NEUTRAL is for one that can't be
    understood, PERMERROR for one whose key can't be used or whose fields are not enough.
    """

    NONE = "none"
    PASS = "pass"  # noqa: S105 (no password)
    FAIL = "fail"
    POLICY = "policy"
    NEUTRAL = "neutral"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


@dataclass(frozen=True, slots=True)
class DKIMResult:
    """The result of one signature.

    What can't be read of it is empty.  `domain` (``d=``) and `selector` are in A-labels.
    `identity` is ``i=`` as it was written, `signature` the beginning of ``b=``, which tells it from
    others of the message (RFC 6008).  `testing`: the domain says that it only tries DKIM.
    `problem` says in words why it did not pass.
    """

    result: ResultCode
    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    identity: str = ""
    signature: str = ""
    testing: bool = False
    problem: str = ""

    def with_result(self, result: ResultCode, problem: str = "") -> DKIMResult:
        """The same signature with another result.

        Each signature has one: `dataclasses.replace` takes nearly twice as long.
        """
        return DKIMResult(
            result,
            self.domain,
            self.selector,
            self.algorithm,
            self.identity,
            self.signature,
            self.testing,
            problem,
        )


class Unverified(Exception):
    """A signature does not pass: the result, and why."""

    def __init__(self, result: ResultCode, problem: str) -> None:
        super().__init__(problem)
        self.result = result
        self.problem = problem
