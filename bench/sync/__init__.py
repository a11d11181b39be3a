"""What syncing costs, and whether it survives faults."""
