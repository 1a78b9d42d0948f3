package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
	argorpc "github.com/argoproj/argo-rollouts/rollout/trafficrouting/plugin/rpc"
	"github.com/argoproj/argo-rollouts/utils/plugin/types"
	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"inference-rollouts.io/plugin/bridge/pb"
)

const config = `{"httpRoute": "chat", "pools": [0, 1.50]}`

func sampleRollout() *v1alpha1.Rollout {
	maximum := int32(200)
	return &v1alpha1.Rollout{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "models", Name: "chat", UID: "uid-1", Generation: 7, ResourceVersion: "4711",
		},
		Spec: v1alpha1.RolloutSpec{Strategy: v1alpha1.RolloutStrategy{Canary: &v1alpha1.CanaryStrategy{
			CanaryService: "chat-canary",
			StableService: "chat-stable",
			TrafficRouting: &v1alpha1.RolloutTrafficRouting{
				Plugins: map[string]json.RawMessage{
					"inference-rollouts/router": json.RawMessage(config),
					"somebody/else":             json.RawMessage(`{}`),
				},
				ManagedRoutes:    []v1alpha1.MangedRoutes{{Name: "beta"}, {Name: "mirror"}},
				MaxTrafficWeight: &maximum,
			},
		}}},
	}
}

func forwardedRollout() *pb.Rollout {
	return &pb.Rollout{
		Namespace: "models", Name: "chat", Uid: "uid-1", Generation: 7, ResourceVersion: "4711",
		PluginConfig:  []byte(config),
		ManagedRoutes: []string{"beta", "mirror"},
		CanaryService: "chat-canary", StableService: "chat-stable",
		MaxTrafficWeight: proto.Int32(200),
	}
}

func TestEachCallArrivesWithAllItsFields(t *testing.T) {
	server := &fakeServer{verified: &pb.VerifyWeightResponse{}}
	socket := socketPath(t)
	serve(t, server, socket)
	bridge := startBridge(t, "--server", "unix:"+socket)

	additional := []v1alpha1.WeightDestination{{ServiceName: "exp", PodTemplateHash: "h9", Weight: 5}}
	forwarded := []*pb.WeightDestination{{ServiceName: "exp", PodTemplateHash: "h9", Weight: 5}}
	percentage := int32(35)
	cases := map[string]struct {
		call func() types.RpcError
		want proto.Message
	}{
		"UpdateHash": {
			call: func() types.RpcError { return bridge.UpdateHash(sampleRollout(), "h3", "h2", additional) },
			want: &pb.UpdateHashRequest{
				Rollout: forwardedRollout(), CanaryHash: "h3", StableHash: "h2",
				AdditionalDestinations: forwarded,
			},
		},
		"SetWeight": {
			call: func() types.RpcError { return bridge.SetWeight(sampleRollout(), 10, additional) },
			want: &pb.SetWeightRequest{
				Rollout: forwardedRollout(), DesiredWeight: 10, AdditionalDestinations: forwarded,
			},
		},
		"SetWeight of zero": {
			call: func() types.RpcError { return bridge.SetWeight(sampleRollout(), 0, nil) },
			want: &pb.SetWeightRequest{Rollout: forwardedRollout(), DesiredWeight: 0},
		},
		"VerifyWeight": {
			call: func() types.RpcError {
				_, result := bridge.VerifyWeight(sampleRollout(), 50, additional)
				return result
			},
			want: &pb.VerifyWeightRequest{
				Rollout: forwardedRollout(), DesiredWeight: 50, AdditionalDestinations: forwarded,
			},
		},
		"SetHeaderRoute": {
			call: func() types.RpcError {
				return bridge.SetHeaderRoute(sampleRollout(), &v1alpha1.SetHeaderRoute{
					Name: "beta",
					Match: []v1alpha1.HeaderRoutingMatch{
						{HeaderName: "x-beta", HeaderValue: &v1alpha1.StringMatch{Exact: "yes"}},
						{HeaderName: "x-any"},
					},
				})
			},
			want: &pb.SetHeaderRouteRequest{
				Rollout: forwardedRollout(), Name: "beta",
				Match: []*pb.HeaderMatch{
					{HeaderName: "x-beta", Value: &pb.StringMatch{Exact: "yes"}},
					{HeaderName: "x-any"},
				},
			},
		},
		"SetHeaderRoute without a match removes": {
			call: func() types.RpcError {
				return bridge.SetHeaderRoute(sampleRollout(), &v1alpha1.SetHeaderRoute{Name: "beta"})
			},
			want: &pb.SetHeaderRouteRequest{Rollout: forwardedRollout(), Name: "beta"},
		},
		"SetMirrorRoute": {
			call: func() types.RpcError {
				return bridge.SetMirrorRoute(sampleRollout(), &v1alpha1.SetMirrorRoute{
					Name: "mirror", Percentage: &percentage,
					Match: []v1alpha1.RouteMatch{{
						Method:  &v1alpha1.StringMatch{Exact: "POST"},
						Path:    &v1alpha1.StringMatch{Prefix: "/v1/"},
						Headers: map[string]v1alpha1.StringMatch{"x-team": {Regex: "a|b"}},
					}},
				})
			},
			want: &pb.SetMirrorRouteRequest{
				Rollout: forwardedRollout(), Name: "mirror", Percentage: proto.Int32(35),
				Match: []*pb.RouteMatch{{
					Method:  &pb.StringMatch{Exact: "POST"},
					Path:    &pb.StringMatch{Prefix: "/v1/"},
					Headers: map[string]*pb.StringMatch{"x-team": {Regex: "a|b"}},
				}},
			},
		},
		"RemoveManagedRoutes": {
			call: func() types.RpcError { return bridge.RemoveManagedRoutes(sampleRollout()) },
			want: &pb.RemoveManagedRoutesRequest{Rollout: forwardedRollout()},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if result := c.call(); result.HasError() {
				t.Fatal(result)
			}
			if got := server.received().(proto.Message); !proto.Equal(got, c.want) {
				t.Errorf("the server received\n%v\ninstead of\n%v", got, c.want)
			}
		})
	}
}

func TestARolloutWithoutTrafficRoutingIsForwardedByItsIdentity(t *testing.T) {
	rollout := &v1alpha1.Rollout{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "r"}}
	want := &pb.Rollout{Namespace: "n", Name: "r"}
	if got := toRollout(rollout, "any/name"); !proto.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	rollout.Spec.Strategy.Canary = &v1alpha1.CanaryStrategy{}
	if got := toRollout(rollout, "any/name"); !proto.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestTheConfigurationIsThatOfThePluginsOwnName(t *testing.T) {
	if got := string(toRollout(sampleRollout(), "somebody/else").GetPluginConfig()); got != "{}" {
		t.Errorf("got %q", got)
	}
	if got := toRollout(sampleRollout(), "no/body").GetPluginConfig(); got != nil {
		t.Errorf("got %q", got)
	}
}

func TestVerdictsKeepTheirMeaning(t *testing.T) {
	server := &fakeServer{}
	socket := socketPath(t)
	serve(t, server, socket)
	bridge := startBridge(t, "--server", "unix:"+socket)
	for sent, want := range map[pb.VerifyWeightResponse_Verified]types.RpcVerified{
		pb.VerifyWeightResponse_NOT_VERIFIED:    types.NotVerified,
		pb.VerifyWeightResponse_VERIFIED:        types.Verified,
		pb.VerifyWeightResponse_NOT_IMPLEMENTED: types.NotImplemented,
		// From a newer server.
		99: types.NotVerified,
	} {
		server.verified = &pb.VerifyWeightResponse{Verified: sent, Error: "5 % off"}
		got, result := bridge.VerifyWeight(sampleRollout(), 50, nil)
		if got != want || result.ErrorString != "5 % off" {
			t.Errorf("%v became %v, %q", sent, got, result.ErrorString)
		}
	}
}

// allOutcomes makes each call whose answer is only an error.
func allOutcomes(plugin argorpc.TrafficRouterPlugin) map[string]string {
	rollout := sampleRollout()
	return map[string]string{
		"UpdateHash":          plugin.UpdateHash(rollout, "h3", "h2", nil).ErrorString,
		"SetWeight":           plugin.SetWeight(rollout, 10, nil).ErrorString,
		"SetHeaderRoute":      plugin.SetHeaderRoute(rollout, &v1alpha1.SetHeaderRoute{}).ErrorString,
		"SetMirrorRoute":      plugin.SetMirrorRoute(rollout, &v1alpha1.SetMirrorRoute{}).ErrorString,
		"RemoveManagedRoutes": plugin.RemoveManagedRoutes(rollout).ErrorString,
	}
}

func TestOnlySetWeightsErrorIsAFormatString(t *testing.T) {
	server := &fakeServer{outcome: &pb.Outcome{Error: "50% of %s"}}
	socket := socketPath(t)
	serve(t, server, socket)
	for method, text := range allOutcomes(startBridge(t, "--server", "unix:"+socket)) {
		want := "50% of %s"
		if method == "SetWeight" {
			want = "50%% of %%s"
		}
		if text != want {
			t.Errorf("%s answered %q instead of %q", method, text, want)
		}
	}
}

func TestAnAbsentServerFailsEachCallAtOnceAndClearly(t *testing.T) {
	socket := socketPath(t)
	// Far above the limit of `eventually` and of the go test run: waiting for it would show.
	bridge := startBridge(t, "--server", "unix:"+socket, "--timeout", "1h")
	if got := bridge.Type(); got != "inference-rollouts/router" {
		t.Errorf("Type is %q", got)
	}
	for method, text := range allOutcomes(bridge) {
		for _, part := range []string{
			"plugin server unix:" + socket + " is not reachable or not ready",
			"no such file or directory",
			"retried by the controller",
			"check that the plugin server runs",
		} {
			if !strings.Contains(text, part) {
				t.Errorf("%s lacks %q: %q", method, part, text)
			}
		}
	}
	verified, result := bridge.VerifyWeight(sampleRollout(), 10, nil)
	if verified != types.NotVerified || result.HasError() {
		t.Errorf("VerifyWeight answered %v, %q: an error is never requeued", verified, result)
	}
}

func TestCallsPassOnceTheServerAppearsAndAgainAfterItsRestart(t *testing.T) {
	socket := socketPath(t)
	bridge := startBridge(t, "--server", "unix:"+socket)
	answered := func() bool { return !bridge.RemoveManagedRoutes(sampleRollout()).HasError() }
	if answered() {
		t.Fatal("answered without a server")
	}

	first := &fakeServer{}
	stop := serve(t, first, socket)
	eventually(t, "the first server answers", answered)
	eventually(t, "the first server knows the bridge", func() bool { return first.announcements() == 1 })
	stop()
	if answered() {
		t.Fatal("answered by a stopped server")
	}

	second := &fakeServer{}
	serve(t, second, socket)
	eventually(t, "the bridge reconnects without a call",
		func() bool { return second.announcements() == 1 })
	if !answered() {
		t.Error("not answered although connected")
	}
}

func TestAHangingServerMeetsTheDeadline(t *testing.T) {
	socket := socketPath(t)
	serve(t, &fakeServer{hang: true}, socket)
	bridge := startBridge(t, "--server", "unix:"+socket, "--timeout", "100ms")
	for method, text := range allOutcomes(bridge) {
		if !strings.Contains(text, "did not answer "+method+" within 100ms") {
			t.Errorf("%s: %q", method, text)
		}
	}
	verified, result := bridge.VerifyWeight(sampleRollout(), 10, nil)
	if verified != types.NotVerified || result.HasError() {
		t.Errorf("VerifyWeight answered %v, %q", verified, result)
	}
}

func TestAListenerThatNeverSpeaksMeetsTheDeadline(t *testing.T) {
	socket := socketPath(t)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	bridge := startBridge(t, "--server", "unix:"+socket, "--timeout", "100ms")
	if text := bridge.UpdateHash(sampleRollout(), "h3", "h2", nil).ErrorString; text == "" {
		t.Error("answered by a listener that never speaks")
	}
}

func TestOtherStatusCodesAreNamed(t *testing.T) {
	cases := map[codes.Code]string{
		codes.Internal:      "failed in SetHeaderRoute: Internal: the reason",
		codes.Unknown:       "failed in SetHeaderRoute: Unknown: the reason",
		codes.Unimplemented: "does not know SetHeaderRoute",
	}
	server := &fakeServer{}
	socket := socketPath(t)
	serve(t, server, socket)
	bridge := startBridge(t, "--server", "unix:"+socket)
	for code, want := range cases {
		server.err = status.Error(code, "the reason")
		text := bridge.SetHeaderRoute(sampleRollout(), &v1alpha1.SetHeaderRoute{}).ErrorString
		if !strings.Contains(text, want) || !strings.Contains(text, "retried by the controller") {
			t.Errorf("%v became %q", code, text)
		}
	}
}

// panicking is a client whose calls panic.
type panicking struct{ pb.TrafficRouterClient }

func (panicking) UpdateHash(context.Context, *pb.UpdateHashRequest, ...grpc.CallOption) (*pb.Outcome, error) {
	panic("100 % wrong")
}

func (panicking) SetWeight(context.Context, *pb.SetWeightRequest, ...grpc.CallOption) (*pb.Outcome, error) {
	panic("100 % wrong")
}

func (panicking) VerifyWeight(
	context.Context, *pb.VerifyWeightRequest, ...grpc.CallOption,
) (*pb.VerifyWeightResponse, error) {
	panic("100 % wrong")
}

func TestAPanicBecomesTheErrorOfItsCall(t *testing.T) {
	log := &lockedBuffer{}
	impl := &forwarder{
		server: panicking{}, timeout: time.Minute, logger: hclog.New(&hclog.LoggerOptions{Output: log}),
	}
	client, _ := goplugin.TestPluginRPCConn(t, goplugin.PluginSet{
		dispenseName: &argorpc.RpcTrafficRouterPlugin{Impl: impl},
	}, nil)
	defer client.Close()
	dispensed, err := client.Dispense(dispenseName)
	if err != nil {
		t.Fatal(err)
	}
	plugin := dispensed.(argorpc.TrafficRouterPlugin)

	if text := plugin.UpdateHash(sampleRollout(), "", "", nil).ErrorString; !strings.Contains(
		text, "failed in UpdateHash: panic: 100 % wrong") {
		t.Errorf("UpdateHash: %q", text)
	}
	if text := plugin.SetWeight(sampleRollout(), 1, nil).ErrorString; !strings.Contains(
		text, "failed in SetWeight: panic: 100 %% wrong") {
		t.Errorf("SetWeight: %q", text)
	}
	if verified, result := plugin.VerifyWeight(sampleRollout(), 1, nil); verified != types.NotVerified ||
		result.HasError() {
		t.Errorf("VerifyWeight: %v, %q", verified, result)
	}
	if !strings.Contains(log.String(), "forward.go") {
		t.Errorf("the stack is not logged: %s", log)
	}
}

func TestLogLinesReachTheControllersLogAtTheirLevel(t *testing.T) {
	socket := socketPath(t)
	bridge := startBridge(t, "--server", "unix:"+socket)
	bridge.VerifyWeight(sampleRollout(), 10, nil)
	eventually(t, "the host logs the failed call", func() bool {
		return strings.Contains(bridge.hostLog.String(), `"weight not verified"`)
	})
	bridge.client.Kill()

	// The host re-levels what it can parse (go-plugin v1.7.0, log_entry.go). The three keys must be
	// strings there: it asserts their type unchecked, which would end the controller.
	scanner := bufio.NewScanner(strings.NewReader(bridge.stderr.String()))
	lines := 0
	for scanner.Scan() {
		lines++
		var entry map[string]any
		if err := json.Unmarshal(scanner.Bytes(), &entry); err != nil {
			t.Errorf("not JSON: %q", scanner.Text())
			continue
		}
		for _, key := range []string{"@message", "@level", "@timestamp"} {
			if text, ok := entry[key].(string); !ok || text == "" {
				t.Errorf("%s is %v in %s", key, entry[key], scanner.Text())
			}
		}
		stamp, _ := entry["@timestamp"].(string)
		if _, err := time.Parse("2006-01-02T15:04:05.000000Z07:00", stamp); err != nil {
			t.Error(err)
		}
	}
	if lines < 2 {
		t.Errorf("%d lines on stderr after Serve: %q", lines, bridge.stderr)
	}
	for line := range strings.Lines(bridge.hostLog.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		if entry["@message"] == "weight not verified" && entry["@level"] != "warn" {
			t.Errorf("logged at %v", entry["@level"])
		}
	}
}

func TestBadArgumentsEndTheProcessWithAReason(t *testing.T) {
	cases := map[string]struct {
		arguments []string
		want      string
	}{
		"no server":         {nil, "--server is missing"},
		"a network address": {[]string{"--server", "dns:///plugin.example:443"}, "may not leave the machine"},
		"half of TLS":       {[]string{"--server", "dns:///x:1", "--tls-cert", "c"}, "belong together"},
		"TLS on a socket": {
			[]string{"--server", "unix:/x", "--tls-cert", "c", "--tls-key", "k", "--tls-ca", "a"},
			"which has no TLS",
		},
		"an unknown scheme": {[]string{"--server", "tcp://1.2.3.4:1"}, "neither unix:PATH nor a loopback"},
		"no time":           {[]string{"--server", "unix:/x", "--timeout", "0s"}, "must be positive"},
		"an unknown level":  {[]string{"--server", "unix:/x", "--log-level", "loud"}, "none of trace"},
		"an unknown flag":   {[]string{"--sever", "unix:/x"}, "not defined: -sever"},
		"a stray argument":  {[]string{"--server", "unix:/x", "y"}, `unexpected argument "y"`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			command := exec.Command(os.Args[0], c.arguments...)
			command.Env = append(os.Environ(), asBridge+"=1",
				handshake.MagicCookieKey+"="+handshake.MagicCookieValue)
			out, err := command.CombinedOutput()
			if err == nil || command.ProcessState.ExitCode() != 2 {
				t.Errorf("exit: %v", err)
			}
			var entry map[string]string
			if err := json.Unmarshal(out, &entry); err != nil {
				t.Fatalf("not one line of JSON: %s", out)
			}
			if entry["@level"] != "error" || !strings.Contains(entry["error"], c.want) {
				t.Errorf("logged %v", entry)
			}
		})
	}
}
