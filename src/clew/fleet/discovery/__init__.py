"""Where the list of an upstream's workers comes from: one file a source."""
