"""Figures of this program and of Postfix, side by side: see ``docs/performance.rst``."""
