"""Tests of what ``mta init`` does."""
