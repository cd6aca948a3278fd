"""Producers: what turns photographs into records. One folder or file each; none knows another."""
