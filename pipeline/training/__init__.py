"""Training runs: the job that command line, Python and Ray all call, and what its result is used for."""
