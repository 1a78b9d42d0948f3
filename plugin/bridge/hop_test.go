package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
	corev1 "k8s.io/api/core/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"inference-rollouts.io/plugin/bridge/pb"
)

// realisticRollout is about what `kubectl get rollout -o json` prints for a model server: 20 KiB,
// which gob carries on each call.
func realisticRollout() *v1alpha1.Rollout {
	rollout := sampleRollout()
	container := corev1.Container{Name: "vllm", Image: "vllm/vllm-openai:v0.11.0"}
	for i := range 120 {
		container.Env = append(container.Env, corev1.EnvVar{
			Name: fmt.Sprintf("VARIABLE_%03d", i), Value: strings.Repeat("v", 80),
		})
	}
	rollout.Spec.Template.Spec.Containers = []corev1.Container{container}
	return rollout
}

// BenchmarkHop measures SetWeight as the controller calls it, through the bridge's process to a
// server that does nothing, and the same gRPC call without the bridge. The difference is the
// bridge's price. It prints percentiles in microseconds, and the size in KiB of what was carried.
//
//	go test -run '^$' -bench Hop -benchtime 5000x
func BenchmarkHop(b *testing.B) {
	socket := socketPath(b)
	serve(b, &fakeServer{}, socket)
	rollout := realisticRollout()
	carried, _ := json.Marshal(rollout)

	b.Run("controller-bridge-server", func(b *testing.B) {
		bridge := startBridge(b, "--server", "unix:"+socket)
		eventually(b, "the bridge is connected", func() bool {
			return !bridge.RemoveManagedRoutes(rollout).HasError()
		})
		measure(b, len(carried), func() error {
			if result := bridge.SetWeight(rollout, 10, nil); result.HasError() {
				return result
			}
			return nil
		})
		b.ReportMetric(float64(residentBytes(b, bridge.client.ReattachConfig().Pid))/(1<<20), "RSS-MiB")
	})
	b.Run("grpc-alone", func(b *testing.B) {
		connection, err := grpc.NewClient("unix:"+socket,
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		defer connection.Close()
		client := pb.NewTrafficRouterClient(connection)
		request := &pb.SetWeightRequest{Rollout: forwardedRollout(), DesiredWeight: 10}
		measure(b, 0, func() error {
			_, err := client.SetWeight(context.Background(), request)
			return err
		})
	})
}

func measure(b *testing.B, carried int, call func() error) {
	b.Helper()
	durations := make([]time.Duration, 0, b.N)
	for b.Loop() {
		start := time.Now()
		if err := call(); err != nil {
			b.Fatal(err)
		}
		durations = append(durations, time.Since(start))
	}
	slices.Sort(durations)
	at := func(q float64) float64 {
		return float64(durations[int(q*float64(len(durations)-1))].Microseconds())
	}
	b.ReportMetric(at(0.50), "p50-us")
	b.ReportMetric(at(0.99), "p99-us")
	if carried > 0 {
		b.ReportMetric(float64(carried)/1024, "rollout-KiB")
	}
}

// residentBytes reads VmRSS of a process on Linux.
func residentBytes(b *testing.B, pid int) int {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Skip("needs /proc")
	}
	for line := range strings.Lines(string(text)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	b.Fatal("no VmRSS")
	return 0
}
