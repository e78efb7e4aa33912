"""Tests of tables that all processes share."""
