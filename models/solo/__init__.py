"""SOLO, Decoupled SOLO and SOLOv2, with their panoptic and matting extensions.

Wang et al.; "thesis" is Wang, Deep Object Segmentation and Beyond, chapters 3 and 4.
"""
