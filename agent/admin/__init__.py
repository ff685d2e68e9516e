"""What an admin does by hand: set up, and repair the queue."""
