package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
	"github.com/argoproj/argo-rollouts/utils/plugin/types"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"inference-rollouts.io/plugin/bridge/pb"
)

// forwarder is the controller's TrafficRouterPlugin: one gRPC call for each call.
type forwarder struct {
	server  pb.TrafficRouterClient
	target  string
	name    string
	timeout time.Duration
	logger  hclog.Logger
}

// InitPlugin answers at once and without error: the controller holds a lock over all Rollouts
// meanwhile, and takes a plugin whose InitPlugin has failed for initialised on the next call.
func (f *forwarder) InitPlugin() types.RpcError { return types.RpcError{} }

// Type is asked for on each reconcile, for a line in the controller's log.
func (f *forwarder) Type() string { return f.name }

func (f *forwarder) UpdateHash(
	rollout *v1alpha1.Rollout, canaryHash, stableHash string, additional []v1alpha1.WeightDestination,
) types.RpcError {
	return f.outcome("UpdateHash", func(ctx context.Context) (*pb.Outcome, error) {
		return f.server.UpdateHash(ctx, &pb.UpdateHashRequest{
			Rollout:                toRollout(rollout, f.name),
			CanaryHash:             canaryHash,
			StableHash:             stableHash,
			AdditionalDestinations: toDestinations(additional),
		})
	})
}

// SetWeight escapes the error's percent signs: the controller takes this text, and that of no other
// method, for the format of an Event and of a log line (argo-rollouts v1.10.2,
// rollout/trafficrouting.go:301 and :313).
func (f *forwarder) SetWeight(
	rollout *v1alpha1.Rollout, weight int32, additional []v1alpha1.WeightDestination,
) types.RpcError {
	result := f.outcome("SetWeight", func(ctx context.Context) (*pb.Outcome, error) {
		return f.server.SetWeight(ctx, &pb.SetWeightRequest{
			Rollout:                toRollout(rollout, f.name),
			DesiredWeight:          weight,
			AdditionalDestinations: toDestinations(additional),
		})
	})
	return types.RpcError{ErrorString: strings.ReplaceAll(result.ErrorString, "%", "%%")}
}

// VerifyWeight answers "not verified" without an error when the server gives no answer. The
// controller then asks again after ten seconds; after an error it would not
// (argo-rollouts v1.10.2, rollout/trafficrouting.go:326-329).
func (f *forwarder) VerifyWeight(
	rollout *v1alpha1.Rollout, weight int32, additional []v1alpha1.WeightDestination,
) (types.RpcVerified, types.RpcError) {
	var response *pb.VerifyWeightResponse
	failure := f.guard("VerifyWeight", func(ctx context.Context) (err error) {
		response, err = f.server.VerifyWeight(ctx, &pb.VerifyWeightRequest{
			Rollout:                toRollout(rollout, f.name),
			DesiredWeight:          weight,
			AdditionalDestinations: toDestinations(additional),
		})
		return err
	})
	if failure != "" {
		// The other calls' failures are in the controller's log already.
		f.logger.Warn("weight not verified", "reason", failure,
			"namespace", rollout.Namespace, "rollout", rollout.Name)
		return types.NotVerified, types.RpcError{}
	}
	return toVerified(response.GetVerified()), types.RpcError{ErrorString: response.GetError()}
}

func (f *forwarder) SetHeaderRoute(
	rollout *v1alpha1.Rollout, route *v1alpha1.SetHeaderRoute,
) types.RpcError {
	return f.outcome("SetHeaderRoute", func(ctx context.Context) (*pb.Outcome, error) {
		return f.server.SetHeaderRoute(ctx, &pb.SetHeaderRouteRequest{
			Rollout: toRollout(rollout, f.name),
			Name:    route.Name,
			Match:   toHeaderMatches(route.Match),
		})
	})
}

func (f *forwarder) SetMirrorRoute(
	rollout *v1alpha1.Rollout, route *v1alpha1.SetMirrorRoute,
) types.RpcError {
	return f.outcome("SetMirrorRoute", func(ctx context.Context) (*pb.Outcome, error) {
		return f.server.SetMirrorRoute(ctx, &pb.SetMirrorRouteRequest{
			Rollout:    toRollout(rollout, f.name),
			Name:       route.Name,
			Match:      toRouteMatches(route.Match),
			Percentage: route.Percentage,
		})
	})
}

func (f *forwarder) RemoveManagedRoutes(rollout *v1alpha1.Rollout) types.RpcError {
	return f.outcome("RemoveManagedRoutes", func(ctx context.Context) (*pb.Outcome, error) {
		return f.server.RemoveManagedRoutes(ctx, &pb.RemoveManagedRoutesRequest{
			Rollout: toRollout(rollout, f.name),
		})
	})
}

// outcome is guard for the calls that only succeed or fail.
func (f *forwarder) outcome(
	method string, call func(context.Context) (*pb.Outcome, error),
) types.RpcError {
	var outcome *pb.Outcome
	failure := f.guard(method, func(ctx context.Context) (err error) {
		outcome, err = call(ctx)
		return err
	})
	if failure != "" {
		return types.RpcError{ErrorString: failure}
	}
	return types.RpcError{ErrorString: outcome.GetError()}
}

// guard runs a call under the deadline and says what went wrong when no answer came, or "". A panic
// counts as that too: net/rpc would let it end the process, and with it the calls of all Rollouts.
func (f *forwarder) guard(method string, call func(context.Context) error) (failure string) {
	ctx, cancel := context.WithTimeout(context.Background(), f.timeout)
	defer cancel()
	defer func() {
		if panicked := recover(); panicked != nil {
			failure = fmt.Sprintf("bridge %s failed in %s: panic: %v; the controller retries the call; "+
				"the controller's log has the stack: please report it", version, method, panicked)
			f.logger.Error("panic", "method", method, "panic", fmt.Sprint(panicked),
				"stack", string(debug.Stack()))
		}
	}()
	if err := call(ctx); err != nil {
		return f.explain(method, err)
	}
	return ""
}

// explain turns a gRPC status into a text that says what to look at.
func (f *forwarder) explain(method string, err error) string {
	found := status.Convert(err)
	switch found.Code() {
	case codes.Unavailable:
		return fmt.Sprintf("plugin server %s is not reachable or not ready: %s; the call is retried by the controller; "+
			"check that the plugin server runs and listens there", f.target, found.Message())
	case codes.DeadlineExceeded:
		return fmt.Sprintf("plugin server %s did not answer %s within %v; the call is retried by the controller; "+
			"check the server's log and its connection to the API server", f.target, method, f.timeout)
	case codes.Unimplemented:
		return fmt.Sprintf("plugin server %s does not know %s: %s; the call is retried by the controller; "+
			"install the version of the server that belongs to bridge %s",
			f.target, method, found.Message(), version)
	}
	return fmt.Sprintf("plugin server %s failed in %s: %s: %s; the call is retried by the controller; "+
		"check the server's log", f.target, method, found.Code(), found.Message())
}
