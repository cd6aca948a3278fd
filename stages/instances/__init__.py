"""Training with instances, pseudo or annotated: reading, augmentation, matching, losses, inference."""
