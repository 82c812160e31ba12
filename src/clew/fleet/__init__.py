"""Who may serve a request: workers, their health, how they are found; claims and bindings."""
