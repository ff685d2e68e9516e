"""Tests every prerequisite, and says how to fix what is wrong."""
