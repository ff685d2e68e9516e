"""The edge to Slurm: starts its commands and interprets their output."""
