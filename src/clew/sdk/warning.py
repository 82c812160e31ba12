"""The one warning of the SDK: something a program asked for cannot happen."""

from __future__ import annotations


class ClewWarning(UserWarning):
    """A call will not be in the session it should be in; the text says why and what to do."""
