"""A node for a cluster without containers: a small scheduler and kubelet in one process.

Pods are bound to this node and their containers run as local processes, each pod on its own
loopback address. What a container image would bring is a table from image names to argument
lists (``images``); what a container runtime would isolate is not isolated.

Pure modules (no I/O): ``addresses``, ``commands``, ``conditions``, ``containers``,
``environment``, ``expansion``, ``fields``, ``images``, ``moments``, ``mounts``, ``nodes``,
``phases``, ``probes``, ``recovery``, ``scheduling``, ``statuses``. Edges: ``api`` and ``writes``
(API server), ``processes``, ``probing``, ``places`` and ``volumes`` (files). Between them:
``runners`` (one container), ``groups``, ``workers`` (one pod), ``agent`` (the node).

Not here: ``kubectl logs``, ``exec`` and ``port-forward`` (a kubelet's own HTTPS server), the
ServiceAccount token at its standard path (a pod gets KUBECONFIG instead), resource limits,
security contexts, volumes of other types than ``volumes`` lists, DNS and Service addresses.
"""
