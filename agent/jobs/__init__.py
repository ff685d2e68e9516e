"""What a job is: the rows of Slurm's accounting, and the record that is sent for them. Pure."""
