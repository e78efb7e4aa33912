"""The Sender Policy Framework (RFC 7208)."""

from mta.authentication.spf.check import Limits, check_hello, check_host
from mta.authentication.spf.result import Identity, Result, SPFResult

__all__ = ["Identity", "Limits", "Result", "SPFResult", "check_hello", "check_host"]
