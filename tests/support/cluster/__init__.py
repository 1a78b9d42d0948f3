"""A real Kubernetes control plane, Argo Rollouts, Envoy and Prometheus as local processes.

``python -m support.cluster up | down | status | exec -- COMMAND``. Tests use
``support.cluster.client``.
"""
