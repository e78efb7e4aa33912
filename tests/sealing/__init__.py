"""Tests of sealed mail."""
