"""Floor 1: what crosses a process or a disk. No torch."""
