"""The data of referring segmentation: pairs of an image's mask and the texts that name it."""
