"""Tests of `mta.doctor`."""
