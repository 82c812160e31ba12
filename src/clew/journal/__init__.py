"""Facts on disk: append, group commit, segments, read back."""
