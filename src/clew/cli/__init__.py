"""Showing: the command line, thin."""
