"""The gateway controller of the local cluster.

It translates GatewayClass, Gateway, HTTPRoute, GRPCRoute, InferencePool, Service and Pod objects
into Envoy's file-based xDS and writes the statuses that the Gateway API prescribes, once Envoy has
taken the configuration they speak of. HTTP and gRPC routes of one host are both served.

::

    snapshot      the watched objects at one moment, indexed
    attachment    which route is attached to which listener, by which host names
    backends      backendRefs -> upstream clusters and ready endpoints, or why not
    matches       an HTTPRoute rule's matches and filters -> Envoy's, with their precedence
    calls         a GRPCRoute rule's matches -> Envoy's, with their precedence
    resources     Envoy's listeners, filters and per-route settings
    upstreams     Envoy's clusters and endpoints
    routing       attached routes -> one route configuration per listener port
    conditions    what is true of each object once Envoy serves the snapshot
    statuses      desired conditions -> the status to write, or nothing
    translate     a snapshot -> resources + statuses (pure)
    xds           the files that Envoy watches
    admin         what Envoy says it has taken
    delivery      files and waiting, in an order that loses no request
    controller    watches and status writes

``rig``, ``peers`` and ``samples`` serve the tests: a real Envoy without a cluster.
"""
