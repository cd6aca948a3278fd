"""SOLO, Decoupled SOLO and SOLOv2 (Wang et al.), with their panoptic and matting extensions."""
