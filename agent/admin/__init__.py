"""Manual operations: setting up, and repairing the queue."""
