"""Tests of `mta.authentication.reports`."""
