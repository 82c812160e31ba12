"""Pure decisions: no clock, no I/O, no environment; time and ids come in as arguments."""
