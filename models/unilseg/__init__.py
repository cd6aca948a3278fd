"""UniLSeg: one model that segments what a sentence names."""
