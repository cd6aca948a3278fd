"""Data sets in other programs' formats: one file a format, over one stream of photographs with their masks."""
