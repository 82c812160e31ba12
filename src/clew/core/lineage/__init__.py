"""Identity and continuity from content: which session a conversation without an id belongs to."""
