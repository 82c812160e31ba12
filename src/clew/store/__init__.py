"""Facts to query: one schema, one writer."""
