"""Shared truth: the store's only writer on this host."""
