"""Tests of `mta.inspectors`."""
