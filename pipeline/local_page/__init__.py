"""What pages served on this machine have in common: who is let in, and how they are served."""
