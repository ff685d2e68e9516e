"""Reports finished Slurm jobs to a usage dashboard: within minutes by a hook, otherwise by a daily reconcile."""

__version__ = "1.0.0"
