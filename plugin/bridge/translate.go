package main

import (
	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
	"github.com/argoproj/argo-rollouts/utils/plugin/types"

	"inference-rollouts.io/plugin/bridge/pb"
)

// toRollout keeps what identifies and configures; the server reads the rest from the API server,
// because gob has dropped each pointer to zero on the way here (`setWeight: 0` is absent).
func toRollout(rollout *v1alpha1.Rollout, name string) *pb.Rollout {
	out := &pb.Rollout{
		Namespace:       rollout.Namespace,
		Name:            rollout.Name,
		Uid:             string(rollout.UID),
		Generation:      rollout.Generation,
		ResourceVersion: rollout.ResourceVersion,
	}
	canary := rollout.Spec.Strategy.Canary
	if canary == nil {
		return out
	}
	out.CanaryService = canary.CanaryService
	out.StableService = canary.StableService
	if routing := canary.TrafficRouting; routing != nil {
		out.PluginConfig = routing.Plugins[name]
		out.MaxTrafficWeight = routing.MaxTrafficWeight
		for _, route := range routing.ManagedRoutes {
			out.ManagedRoutes = append(out.ManagedRoutes, route.Name)
		}
	}
	return out
}

func toDestinations(destinations []v1alpha1.WeightDestination) []*pb.WeightDestination {
	out := make([]*pb.WeightDestination, 0, len(destinations))
	for _, destination := range destinations {
		out = append(out, &pb.WeightDestination{
			ServiceName:     destination.ServiceName,
			PodTemplateHash: destination.PodTemplateHash,
			Weight:          destination.Weight,
		})
	}
	return out
}

func toVerified(verified pb.VerifyWeightResponse_Verified) types.RpcVerified {
	switch verified {
	case pb.VerifyWeightResponse_VERIFIED:
		return types.Verified
	case pb.VerifyWeightResponse_NOT_IMPLEMENTED:
		return types.NotImplemented
	}
	return types.NotVerified
}

func toStringMatch(match *v1alpha1.StringMatch) *pb.StringMatch {
	if match == nil {
		return nil
	}
	return &pb.StringMatch{Exact: match.Exact, Prefix: match.Prefix, Regex: match.Regex}
}

func toHeaderMatches(matches []v1alpha1.HeaderRoutingMatch) []*pb.HeaderMatch {
	out := make([]*pb.HeaderMatch, 0, len(matches))
	for _, match := range matches {
		out = append(out, &pb.HeaderMatch{
			HeaderName: match.HeaderName,
			Value:      toStringMatch(match.HeaderValue),
		})
	}
	return out
}

func toRouteMatches(matches []v1alpha1.RouteMatch) []*pb.RouteMatch {
	out := make([]*pb.RouteMatch, 0, len(matches))
	for _, match := range matches {
		headers := make(map[string]*pb.StringMatch, len(match.Headers))
		for name, value := range match.Headers {
			headers[name] = toStringMatch(&value)
		}
		out = append(out, &pb.RouteMatch{
			Method:  toStringMatch(match.Method),
			Path:    toStringMatch(match.Path),
			Headers: headers,
		})
	}
	return out
}
