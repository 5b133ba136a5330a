"""Where a run's events go besides `events.jsonl`."""
