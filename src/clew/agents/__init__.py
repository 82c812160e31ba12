"""Coding agents: how each is pointed at a gateway, once or for good. Decides; touches nothing."""
