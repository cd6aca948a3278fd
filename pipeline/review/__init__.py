"""A local page on which people accept, reject and tag images and masks."""
