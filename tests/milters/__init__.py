"""Tests of the room for filters."""
