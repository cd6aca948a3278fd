"""Manifests for schedulers of machines, rendered from one `ClusterSpec`."""
