// Command caller makes the calls of a controller to the plugin server, as its bridge does: gRPC for
// Go, one connection, a bounded number at once. It is for benchmarks: what is called and when comes
// as JSON on standard input, how long each call took goes as JSON to standard output.
//
// It is not the bridge itself, whose hop is measured beside it (hop_test.go).
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"inference-rollouts.io/plugin/bridge/pb"
)

// deadline is the bridge's own for one call.
const deadline = 8 * time.Second

// plan is the input: reconciles in the order in which they become due.
type plan struct {
	Target     string      `json:"target"`
	Workers    int         `json:"workers"`
	Rollouts   []rollout   `json:"rollouts"`
	Reconciles []reconcile `json:"reconciles"`
}

type rollout struct {
	Namespace       string `json:"namespace"`
	Name            string `json:"name"`
	UID             string `json:"uid"`
	Generation      int64  `json:"generation"`
	ResourceVersion string `json:"resourceVersion"`
	Config          string `json:"config"`
	Stable          string `json:"stable"`
	Canary          string `json:"canary"`
}

// reconcile is what one worker does at once: UpdateHash, SetWeight and, if asked for, VerifyWeight.
// At is when it is due, in seconds since the start.
type reconcile struct {
	At      float64 `json:"at"`
	Rollout int     `json:"rollout"`
	Weight  int32   `json:"weight"`
	Verify  bool    `json:"verify"`
}

// timed is the output for one reconcile, in seconds. Waited is the time until a worker was free.
type timed struct {
	Waited       float64 `json:"waited"`
	UpdateHash   float64 `json:"updateHash"`
	SetWeight    float64 `json:"setWeight"`
	VerifyWeight float64 `json:"verifyWeight"`
	Verified     bool    `json:"verified"`
	Error        string  `json:"error"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "caller:", err)
		os.Exit(1)
	}
}

func run() error {
	// The heap stays small, and a collection would be measured as the server's.
	debug.SetGCPercent(-1)
	var todo plan
	if err := json.NewDecoder(os.Stdin).Decode(&todo); err != nil {
		return fmt.Errorf("the plan on standard input: %w", err)
	}
	connection, err := grpc.NewClient(todo.Target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	server := pb.NewTrafficRouterClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	// The first call connects.
	if _, err := server.Describe(ctx, &pb.DescribeRequest{}, grpc.WaitForReady(true)); err != nil {
		return fmt.Errorf("no plugin server at %s: %w", todo.Target, err)
	}
	return json.NewEncoder(os.Stdout).Encode(todo.carryOut(server))
}

// carryOut makes all calls, each reconcile as soon as it is due and a worker is free; one of each
// Rollout at a time, as the controller's queue sees to.
func (p *plan) carryOut(server pb.TrafficRouterClient) []timed {
	results := make([]timed, len(p.Reconciles))
	due := make(chan int, len(p.Reconciles))
	busy := make([]sync.Mutex, len(p.Rollouts))
	start := time.Now()
	var workers sync.WaitGroup
	for range p.Workers {
		workers.Go(func() {
			for at := range due {
				next := p.Reconciles[at]
				busy[next.Rollout].Lock()
				waited := time.Since(start).Seconds() - next.At
				results[at] = next.call(server, p.Rollouts[next.Rollout])
				results[at].Waited = waited
				busy[next.Rollout].Unlock()
			}
		})
	}
	for at, next := range p.Reconciles {
		time.Sleep(time.Until(start.Add(time.Duration(next.At * float64(time.Second)))))
		due <- at
	}
	close(due)
	workers.Wait()
	return results
}

func (r reconcile) call(server pb.TrafficRouterClient, of rollout) (result timed) {
	message := &pb.Rollout{
		Namespace:       of.Namespace,
		Name:            of.Name,
		Uid:             of.UID,
		Generation:      of.Generation,
		ResourceVersion: of.ResourceVersion,
		PluginConfig:    []byte(of.Config),
	}
	result.UpdateHash = measure(&result, func(ctx context.Context) (*pb.Outcome, error) {
		return server.UpdateHash(ctx, &pb.UpdateHashRequest{
			Rollout: message, CanaryHash: of.Canary, StableHash: of.Stable,
		})
	})
	result.SetWeight = measure(&result, func(ctx context.Context) (*pb.Outcome, error) {
		return server.SetWeight(ctx, &pb.SetWeightRequest{Rollout: message, DesiredWeight: r.Weight})
	})
	if !r.Verify {
		return result
	}
	result.VerifyWeight = measure(&result, func(ctx context.Context) (*pb.Outcome, error) {
		answer, err := server.VerifyWeight(ctx, &pb.VerifyWeightRequest{
			Rollout: message, DesiredWeight: r.Weight,
		})
		result.Verified = answer.GetVerified() == pb.VerifyWeightResponse_VERIFIED
		return nil, err
	})
	return result
}

// measure makes one call under the bridge's deadline, notes what went wrong, and returns its seconds.
func measure(into *timed, call func(context.Context) (*pb.Outcome, error)) float64 {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	start := time.Now()
	outcome, err := call(ctx)
	took := time.Since(start).Seconds()
	if err != nil {
		into.Error = err.Error()
	} else if outcome.GetError() != "" {
		into.Error = outcome.GetError()
	}
	return took
}
