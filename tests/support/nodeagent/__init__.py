"""A node for a cluster without containers: a small scheduler and kubelet in one process.

Pods are bound to this node and their containers run as local processes, each pod on its own
loopback address. What a container image would bring is a table from image names to argument
lists (``images``); what a container runtime would isolate is not isolated.

Pure modules (no I/O): ``addresses``, ``commands``, ``containers``, ``environment``,
``expansion``, ``fields``, ``images``, ``mounts``, ``nodes``, ``probes``, ``scheduling``,
``statuses``. Edges: ``api`` (API server), ``processes``, ``probing``, ``volumes``. Between them:
``runners`` (one container), ``workers`` (one pod), ``agent`` (the node).
"""
