"""``inference-rollouts plugin lint``: manifests are checked without a cluster."""
