"""Claims: which worker a session is bound to, agreed by every gateway of a store."""
