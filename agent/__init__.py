"""Brings finished Slurm jobs to a usage dashboard: by a hook's queue within minutes, by a daily replay at the latest."""

__version__ = "1.0.0"
