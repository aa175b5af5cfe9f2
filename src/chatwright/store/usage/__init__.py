"""What was used, what may still be used, and by whom: limits, reservations of running requests, and counts of those that ended."""
