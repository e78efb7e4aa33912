"""Tests of `mta.signing`."""
