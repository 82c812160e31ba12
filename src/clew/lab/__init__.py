"""The simulated provider and the demo."""
