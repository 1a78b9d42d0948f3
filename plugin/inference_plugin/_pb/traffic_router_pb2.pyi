from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: str
    def __init__(self, error: _Optional[str] = ...) -> None: ...

class Rollout(_message.Message):
    __slots__ = ("namespace", "name", "uid", "generation", "plugin_config", "managed_routes", "canary_service", "stable_service", "max_traffic_weight", "resource_version")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PLUGIN_CONFIG_FIELD_NUMBER: _ClassVar[int]
    MANAGED_ROUTES_FIELD_NUMBER: _ClassVar[int]
    CANARY_SERVICE_FIELD_NUMBER: _ClassVar[int]
    STABLE_SERVICE_FIELD_NUMBER: _ClassVar[int]
    MAX_TRAFFIC_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    uid: str
    generation: int
    plugin_config: bytes
    managed_routes: _containers.RepeatedScalarFieldContainer[str]
    canary_service: str
    stable_service: str
    max_traffic_weight: int
    resource_version: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ..., generation: _Optional[int] = ..., plugin_config: _Optional[bytes] = ..., managed_routes: _Optional[_Iterable[str]] = ..., canary_service: _Optional[str] = ..., stable_service: _Optional[str] = ..., max_traffic_weight: _Optional[int] = ..., resource_version: _Optional[str] = ...) -> None: ...

class WeightDestination(_message.Message):
    __slots__ = ("service_name", "pod_template_hash", "weight")
    SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    POD_TEMPLATE_HASH_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    service_name: str
    pod_template_hash: str
    weight: int
    def __init__(self, service_name: _Optional[str] = ..., pod_template_hash: _Optional[str] = ..., weight: _Optional[int] = ...) -> None: ...

class InitPluginRequest(_message.Message):
    __slots__ = ("bridge_version", "protocol")
    BRIDGE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    bridge_version: str
    protocol: int
    def __init__(self, bridge_version: _Optional[str] = ..., protocol: _Optional[int] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("server_version", "protocol", "ready", "rollouts", "bridges", "lease", "leads")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    ROLLOUTS_FIELD_NUMBER: _ClassVar[int]
    BRIDGES_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    LEADS_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    protocol: int
    ready: bool
    rollouts: int
    bridges: _containers.RepeatedCompositeFieldContainer[Bridge]
    lease: str
    leads: bool
    def __init__(self, server_version: _Optional[str] = ..., protocol: _Optional[int] = ..., ready: _Optional[bool] = ..., rollouts: _Optional[int] = ..., bridges: _Optional[_Iterable[_Union[Bridge, _Mapping]]] = ..., lease: _Optional[str] = ..., leads: _Optional[bool] = ...) -> None: ...

class Bridge(_message.Message):
    __slots__ = ("version", "protocol", "announced_ago_s")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCED_AGO_S_FIELD_NUMBER: _ClassVar[int]
    version: str
    protocol: int
    announced_ago_s: float
    def __init__(self, version: _Optional[str] = ..., protocol: _Optional[int] = ..., announced_ago_s: _Optional[float] = ...) -> None: ...

class UpdateHashRequest(_message.Message):
    __slots__ = ("rollout", "canary_hash", "stable_hash", "additional_destinations")
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    CANARY_HASH_FIELD_NUMBER: _ClassVar[int]
    STABLE_HASH_FIELD_NUMBER: _ClassVar[int]
    ADDITIONAL_DESTINATIONS_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    canary_hash: str
    stable_hash: str
    additional_destinations: _containers.RepeatedCompositeFieldContainer[WeightDestination]
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ..., canary_hash: _Optional[str] = ..., stable_hash: _Optional[str] = ..., additional_destinations: _Optional[_Iterable[_Union[WeightDestination, _Mapping]]] = ...) -> None: ...

class SetWeightRequest(_message.Message):
    __slots__ = ("rollout", "desired_weight", "additional_destinations")
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    DESIRED_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ADDITIONAL_DESTINATIONS_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    desired_weight: int
    additional_destinations: _containers.RepeatedCompositeFieldContainer[WeightDestination]
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ..., desired_weight: _Optional[int] = ..., additional_destinations: _Optional[_Iterable[_Union[WeightDestination, _Mapping]]] = ...) -> None: ...

class VerifyWeightRequest(_message.Message):
    __slots__ = ("rollout", "desired_weight", "additional_destinations")
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    DESIRED_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ADDITIONAL_DESTINATIONS_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    desired_weight: int
    additional_destinations: _containers.RepeatedCompositeFieldContainer[WeightDestination]
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ..., desired_weight: _Optional[int] = ..., additional_destinations: _Optional[_Iterable[_Union[WeightDestination, _Mapping]]] = ...) -> None: ...

class VerifyWeightResponse(_message.Message):
    __slots__ = ("verified", "error")
    class Verified(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NOT_VERIFIED: _ClassVar[VerifyWeightResponse.Verified]
        VERIFIED: _ClassVar[VerifyWeightResponse.Verified]
        NOT_IMPLEMENTED: _ClassVar[VerifyWeightResponse.Verified]
    NOT_VERIFIED: VerifyWeightResponse.Verified
    VERIFIED: VerifyWeightResponse.Verified
    NOT_IMPLEMENTED: VerifyWeightResponse.Verified
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    verified: VerifyWeightResponse.Verified
    error: str
    def __init__(self, verified: _Optional[_Union[VerifyWeightResponse.Verified, str]] = ..., error: _Optional[str] = ...) -> None: ...

class StringMatch(_message.Message):
    __slots__ = ("exact", "prefix", "regex")
    EXACT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    REGEX_FIELD_NUMBER: _ClassVar[int]
    exact: str
    prefix: str
    regex: str
    def __init__(self, exact: _Optional[str] = ..., prefix: _Optional[str] = ..., regex: _Optional[str] = ...) -> None: ...

class HeaderMatch(_message.Message):
    __slots__ = ("header_name", "value")
    HEADER_NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    header_name: str
    value: StringMatch
    def __init__(self, header_name: _Optional[str] = ..., value: _Optional[_Union[StringMatch, _Mapping]] = ...) -> None: ...

class SetHeaderRouteRequest(_message.Message):
    __slots__ = ("rollout", "name", "match")
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    name: str
    match: _containers.RepeatedCompositeFieldContainer[HeaderMatch]
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ..., name: _Optional[str] = ..., match: _Optional[_Iterable[_Union[HeaderMatch, _Mapping]]] = ...) -> None: ...

class RouteMatch(_message.Message):
    __slots__ = ("method", "path", "headers")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: StringMatch
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[StringMatch, _Mapping]] = ...) -> None: ...
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    method: StringMatch
    path: StringMatch
    headers: _containers.MessageMap[str, StringMatch]
    def __init__(self, method: _Optional[_Union[StringMatch, _Mapping]] = ..., path: _Optional[_Union[StringMatch, _Mapping]] = ..., headers: _Optional[_Mapping[str, StringMatch]] = ...) -> None: ...

class SetMirrorRouteRequest(_message.Message):
    __slots__ = ("rollout", "name", "match", "percentage")
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    PERCENTAGE_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    name: str
    match: _containers.RepeatedCompositeFieldContainer[RouteMatch]
    percentage: int
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ..., name: _Optional[str] = ..., match: _Optional[_Iterable[_Union[RouteMatch, _Mapping]]] = ..., percentage: _Optional[int] = ...) -> None: ...

class RemoveManagedRoutesRequest(_message.Message):
    __slots__ = ("rollout",)
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ...) -> None: ...
