"""Mask R-CNN from torchvision's parts, and ContrastMask's additions to it."""
