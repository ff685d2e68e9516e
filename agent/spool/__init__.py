"""The interface to the disk: the queue, and the state kept between runs."""
