"""A real Kubernetes cluster on one machine, without containers, for the demo and the tests."""
