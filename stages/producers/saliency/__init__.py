"""Masks of what stands out, from the features of a frozen backbone (Saliency Prompt, FreeSOLO)."""
