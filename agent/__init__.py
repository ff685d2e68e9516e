"""Brings finished Slurm jobs to a usage dashboard: within minutes by a hook, by a daily replay at the latest."""

__version__ = "1.0.0"
