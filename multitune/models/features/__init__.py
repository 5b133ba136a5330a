"""The feature store: what lies under a cut is encoded once a row, kept in shards, and read back in place of running it."""
