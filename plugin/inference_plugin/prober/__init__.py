"""The adapter prober: the pod of a release Rollout, Ready while a pool serves a name."""
