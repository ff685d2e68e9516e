"""The edge to the disk: the hook's queue, and what is remembered between runs."""
