"""DenseCL training as a job: photographs in, a run folder and a backbone out."""
