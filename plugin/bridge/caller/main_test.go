package main

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"inference-rollouts.io/plugin/bridge/pb"
)

// countingServer notes how many calls it has at once, in all and of one Rollout.
type countingServer struct {
	pb.UnimplementedTrafficRouterServer
	mutex   sync.Mutex
	open    map[string]int
	all     int
	most    int
	ofOne   int
	weights map[string][]int32
}

func (s *countingServer) UpdateHash(context.Context, *pb.UpdateHashRequest) (*pb.Outcome, error) {
	return &pb.Outcome{}, nil
}

func (s *countingServer) SetWeight(_ context.Context, request *pb.SetWeightRequest) (*pb.Outcome, error) {
	name := request.GetRollout().GetName()
	s.mutex.Lock()
	s.all++
	s.open[name]++
	s.most, s.ofOne = max(s.most, s.all), max(s.ofOne, s.open[name])
	s.weights[name] = append(s.weights[name], request.GetDesiredWeight())
	s.mutex.Unlock()
	defer func() {
		s.mutex.Lock()
		s.all--
		s.open[name]--
		s.mutex.Unlock()
	}()
	if request.GetDesiredWeight() == 99 {
		return &pb.Outcome{Error: "too much"}, nil
	}
	return &pb.Outcome{}, nil
}

func (s *countingServer) VerifyWeight(context.Context, *pb.VerifyWeightRequest) (*pb.VerifyWeightResponse, error) {
	return &pb.VerifyWeightResponse{Verified: pb.VerifyWeightResponse_VERIFIED}, nil
}

func serve(t *testing.T) (*countingServer, pb.TrafficRouterClient) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	counting := &countingServer{open: map[string]int{}, weights: map[string][]int32{}}
	server := grpc.NewServer()
	pb.RegisterTrafficRouterServer(server, counting)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	connection, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return counting, pb.NewTrafficRouterClient(connection)
}

func TestReconcilesAreBoundedAndOneOfEachRolloutAtATime(t *testing.T) {
	counting, client := serve(t)
	todo := plan{Workers: 3, Rollouts: []rollout{{Name: "a"}, {Name: "b"}}}
	for number := range 200 {
		todo.Reconciles = append(todo.Reconciles, reconcile{Rollout: number % 2, Weight: 10, Verify: true})
	}
	results := todo.carryOut(client)
	for _, result := range results {
		if result.Error != "" || !result.Verified || result.SetWeight <= 0 || result.VerifyWeight <= 0 {
			t.Fatalf("a reconcile went wrong: %+v", result)
		}
	}
	if counting.most > 3 || counting.ofOne != 1 {
		t.Errorf("%d calls at once, %d of one Rollout; want at most 3, and 1", counting.most, counting.ofOne)
	}
	if done := len(counting.weights["a"]) + len(counting.weights["b"]); done != 200 {
		t.Errorf("%d calls arrived, want 200", done)
	}
}

func TestAnErrorIsNotedBesideItsReconcile(t *testing.T) {
	_, client := serve(t)
	todo := plan{Workers: 1, Rollouts: []rollout{{Name: "a"}}, Reconciles: []reconcile{
		{Weight: 10}, {Weight: 99, At: 0.01}, {Weight: 10, At: 0.02},
	}}
	results := todo.carryOut(client)
	for at, want := range []string{"", "too much", ""} {
		if results[at].Error != want || results[at].Verified {
			t.Errorf("reconcile %d: %+v, want the error %q and nothing verified", at, results[at], want)
		}
	}
}
