"""What a job is: its rows in Slurm's accounting, and the record made from them. Pure."""
