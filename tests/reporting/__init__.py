"""Tests of `mta.reporting`."""
