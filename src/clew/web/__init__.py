"""Showing: admin API and page; reads only."""
