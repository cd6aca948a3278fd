"""DenseCL: dense contrastive learning of a backbone (Wang et al.), and MoCo-v2 as its lambda = 0."""
