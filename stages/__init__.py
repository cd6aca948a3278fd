"""Floor 3: one file, one step. The mathematics are pure functions on tensors."""
