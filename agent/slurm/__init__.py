"""The edge to Slurm: child processes, and what their answers mean."""
