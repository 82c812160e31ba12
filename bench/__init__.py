"""Measures what a request and a streamed chunk cost, beside other proxies, in one run."""
