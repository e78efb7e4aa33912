"""The tests.  Property tests draw the same examples in every run: a failure can be repeated."""

from hypothesis import settings

settings.register_profile("mta", deadline=None, derandomize=True)
settings.load_profile("mta")
