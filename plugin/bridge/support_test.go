package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	argorpc "github.com/argoproj/argo-rollouts/rollout/trafficrouting/plugin/rpc"
	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"inference-rollouts.io/plugin/bridge/pb"
)

// asBridge makes the test binary be the bridge, so that the tests drive the real process.
const asBridge = "INFERENCE_ROLLOUTS_TEST_AS_BRIDGE"

func TestMain(m *testing.M) {
	if os.Getenv(asBridge) != "" {
		os.Exit(run(os.Args[1:], os.Stderr))
	}
	os.Exit(m.Run())
}

// fakeServer is a plugin server: it keeps the last request and gives the set answers.
type fakeServer struct {
	pb.UnimplementedTrafficRouterServer
	mutex     sync.Mutex
	last      any
	announced int
	outcome   *pb.Outcome
	verified  *pb.VerifyWeightResponse
	// hang keeps each call open until the caller gives up.
	hang bool
	err  error
}

func (s *fakeServer) answer(ctx context.Context, request any) (*pb.Outcome, error) {
	s.mutex.Lock()
	s.last = request
	s.mutex.Unlock()
	if s.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if s.outcome == nil {
		return &pb.Outcome{}, s.err
	}
	return s.outcome, s.err
}

func (s *fakeServer) received() any {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.last
}

func (s *fakeServer) announcements() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.announced
}

func (s *fakeServer) InitPlugin(_ context.Context, request *pb.InitPluginRequest) (*pb.Outcome, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if request.GetBridgeVersion() == version && request.GetProtocol() == protocol {
		s.announced++
	}
	return &pb.Outcome{}, nil
}

func (s *fakeServer) UpdateHash(ctx context.Context, r *pb.UpdateHashRequest) (*pb.Outcome, error) {
	return s.answer(ctx, r)
}

func (s *fakeServer) SetWeight(ctx context.Context, r *pb.SetWeightRequest) (*pb.Outcome, error) {
	return s.answer(ctx, r)
}

func (s *fakeServer) SetHeaderRoute(ctx context.Context, r *pb.SetHeaderRouteRequest) (*pb.Outcome, error) {
	return s.answer(ctx, r)
}

func (s *fakeServer) SetMirrorRoute(ctx context.Context, r *pb.SetMirrorRouteRequest) (*pb.Outcome, error) {
	return s.answer(ctx, r)
}

func (s *fakeServer) RemoveManagedRoutes(
	ctx context.Context, r *pb.RemoveManagedRoutesRequest,
) (*pb.Outcome, error) {
	return s.answer(ctx, r)
}

func (s *fakeServer) VerifyWeight(
	ctx context.Context, r *pb.VerifyWeightRequest,
) (*pb.VerifyWeightResponse, error) {
	_, err := s.answer(ctx, r)
	return s.verified, err
}

// socketPath is short: a unix socket's path has at most 107 bytes, less than t.TempDir may use.
func socketPath(t testing.TB) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "bridge")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return filepath.Join(folder, "plugin.sock")
}

// serve runs the server on the socket until stop or the test's end.
func serve(t testing.TB, server pb.TrafficRouterServer, socket string) (stop func()) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	running := grpc.NewServer()
	pb.RegisterTrafficRouterServer(running, server)
	done := make(chan struct{})
	go func() { defer close(done); _ = running.Serve(listener) }()
	stop = sync.OnceFunc(func() { running.Stop(); <-done })
	t.Cleanup(stop)
	return stop
}

// lockedBuffer collects what several goroutines write.
type lockedBuffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.String()
}

// started is a bridge process, and the two ends of it that the controller holds.
type started struct {
	argorpc.TrafficRouterPlugin
	client *goplugin.Client
	// stderr is what the process wrote; hostLog is what the controller's logger makes of it.
	stderr, hostLog *lockedBuffer
}

// startBridge starts the process as the controller does
// (argo-rollouts v1.10.2, rollout/trafficrouting/plugin/client/client.go:75-100).
func startBridge(t testing.TB, arguments ...string) *started {
	t.Helper()
	command := exec.Command(os.Args[0], arguments...)
	// As in a cluster behind a proxy, which has nothing to do with the server next door.
	command.Env = append(os.Environ(), asBridge+"=1", "HTTPS_PROXY=http://127.0.0.1:1")
	s := &started{stderr: &lockedBuffer{}, hostLog: &lockedBuffer{}}
	s.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: handshake,
		Plugins:         goplugin.PluginSet{dispenseName: &argorpc.RpcTrafficRouterPlugin{}},
		Cmd:             command,
		Stderr:          s.stderr,
		Logger: hclog.New(&hclog.LoggerOptions{
			Level: hclog.Info, Output: s.hostLog, JSONFormat: true,
		}),
	})
	t.Cleanup(s.client.Kill)
	protocol, err := s.client.Client()
	if err != nil {
		t.Fatalf("the bridge did not start: %v\n%s", err, s.stderr)
	}
	dispensed, err := protocol.Dispense(dispenseName)
	if err != nil {
		t.Fatal(err)
	}
	s.TrafficRouterPlugin = dispensed.(argorpc.TrafficRouterPlugin)
	if result := s.InitPlugin(); result.HasError() {
		t.Fatal(result)
	}
	if err := protocol.Ping(); err != nil {
		t.Fatal(err)
	}
	return s
}

// eventually waits for a condition; a generous limit only bounds a failing test.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(limit) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
