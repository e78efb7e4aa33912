"""Attacks on the running program as a black box: tables of them, a row each.

``tests/attacks/*.txt`` hold the rows, `tests.attacks.test_attacks` tries them as a part of the
suite.  ``python -m tests.attacks MINUTES`` (``make attack``) also mutates them for so long, and
says what broke.
"""
