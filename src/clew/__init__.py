"""Clew gives every LLM call a durable session identity.

Importing the package does nothing and needs nothing but the standard library.
The gateway and the ``clew`` command come with the extra: ``pip install 'clew[gateway]'``.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
