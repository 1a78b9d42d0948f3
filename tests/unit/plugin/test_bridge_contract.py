"""The contract between the bridge and the plugin server, and the code generated from it."""

import subprocess
import sys
from pathlib import Path

from inference_plugin._pb import traffic_router_pb2

REPOSITORY = Path(__file__).resolve().parents[3]


def test_the_checked_in_python_code_is_what_the_generator_writes() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "plugin/proto/generate.py", "--check", "--python-only"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_the_controller_calls_is_what_the_contract_offers() -> None:
    # argo-rollouts v1.10.2, rollout/trafficrouting/plugin/rpc/rpc.go:58-61 and
    # utils/plugin/types/types.go, without Type, which the bridge answers itself.
    offered = traffic_router_pb2.DESCRIPTOR.services_by_name["TrafficRouter"].methods_by_name
    assert set(offered) == {
        "InitPlugin",
        "UpdateHash",
        "SetWeight",
        "VerifyWeight",
        "SetHeaderRoute",
        "SetMirrorRoute",
        "RemoveManagedRoutes",
        # Ours, for `plugin doctor`.
        "Describe",
    }


def test_an_absent_maximum_differs_from_zero() -> None:
    absent = traffic_router_pb2.Rollout()
    zero = traffic_router_pb2.Rollout(max_traffic_weight=0)
    assert not absent.HasField("max_traffic_weight")
    assert zero.HasField("max_traffic_weight")
