"""The store's migrations; run by `store.migrate` alone."""
