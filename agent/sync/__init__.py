"""From Slurm's accounting to the dashboard: flush and reconcile."""
