"""Floor 4: composition. Plan, run, commit, seal, status."""
