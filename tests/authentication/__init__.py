"""Tests of `mta.authentication`."""
