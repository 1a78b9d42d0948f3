"""The gateway controller of the local cluster.

It translates GatewayClass, Gateway, HTTPRoute, InferencePool, Service and Pod objects into
Envoy's file-based xDS and writes the statuses that the Gateway API prescribes, once Envoy has
taken the configuration they speak of.

::

    snapshot      the watched objects at one moment, indexed
    attachment    which route is attached to which listener, by which host names
    backends      backendRefs -> upstream clusters and ready endpoints, or why not
    matches       a rule's matches and filters -> Envoy's, with their precedence
    resources     Envoy resources as dictionaries: listener, cluster, ext_proc, endpoints
    routing       attached routes -> one route configuration per listener port
    statuses      desired conditions -> the status to write, or nothing
    translate     a snapshot -> resources + statuses (pure)
    xds           the files that Envoy watches
    admin         what Envoy says it has taken
    controller    watches, order of writes, statuses
"""
