package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"inference-rollouts.io/plugin/bridge/pb"
)

// checkTarget accepts a unix socket, an address with mutual TLS, and without it a loopback address
// for development.
func checkTarget(target string, secured bool) error {
	local := strings.HasPrefix(target, "unix:") || strings.HasPrefix(target, "unix-abstract:")
	switch {
	case target == "":
		return fmt.Errorf("--server is missing: give the plugin server's socket, unix:PATH")
	case local && secured:
		return fmt.Errorf("--server %q is a unix socket, which has no TLS: leave the --tls-... out", target)
	case local, secured && strings.HasPrefix(target, "dns:///"):
		return nil
	case secured:
		return fmt.Errorf("--server %q is not dns:///HOST:PORT", target)
	case strings.HasPrefix(target, "dns:///localhost:"), strings.HasPrefix(target, "dns:///127."):
		return nil
	}
	return fmt.Errorf("--server %q is neither unix:PATH nor a loopback address (dns:///127.x.y.z:PORT); "+
		"without --tls-cert, --tls-key and --tls-ca calls are not encrypted, so they may not leave the machine",
		target)
}

// connect returns at once, whether or not the server is there.
func connect(target string, files tlsFiles) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	var distant []grpc.DialOption
	if files.given() {
		transport = &reloading{files: files}
		// On a network a peer can vanish without a word. The server allows a ping every five seconds.
		distant = append(distant, grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true,
		}))
	}
	return grpc.NewClient(target, append(distant,
		grpc.WithTransportCredentials(transport),
		// gRPC's own defaults, a back-off of up to 120 s and 20 s for a handshake, suit a distant
		// service. Here the server is a neighbour that is back a second after its restart.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay:  50 * time.Millisecond,
				Multiplier: 1.6,
				Jitter:     0.2,
				MaxDelay:   time.Second,
			},
			MinConnectTimeout: 2 * time.Second,
		}),
		// No keepalive pings on a socket: on one machine a peer does not vanish unnoticed, a frozen one meets the
		// deadline of each call, and a server of gRPC's C core (hence of Python) by default drops
		// who pings more often than every five minutes.
		grpc.WithIdleTimeout(0),
		grpc.WithUserAgent("inference-rollouts-bridge/"+version),
	)...)
}

// keepConnected reconnects without waiting for a call, logs each change between up and down once,
// and calls onReady after each connection.
func keepConnected(connection *grpc.ClientConn, target string, logger hclog.Logger, onReady func()) {
	down := false
	for state := connection.GetState(); state != connectivity.Shutdown; state = connection.GetState() {
		switch state {
		case connectivity.Idle:
			connection.Connect()
		case connectivity.Ready:
			down = false
			logger.Info("connected to the plugin server", "server", target)
			go onReady()
		case connectivity.TransientFailure:
			if !down {
				logger.Warn("the plugin server is not reachable; calls fail until it is", "server", target)
			}
			down = true
		}
		connection.WaitForStateChange(context.Background(), state)
	}
}

// announce tells a newly connected server who calls. Its answer concerns the log only.
func announce(server pb.TrafficRouterClient, timeout time.Duration, logger hclog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	outcome, err := server.InitPlugin(ctx, &pb.InitPluginRequest{BridgeVersion: version, Protocol: protocol})
	switch {
	case err != nil:
		logger.Warn("the plugin server did not take InitPlugin", "error", err)
	case outcome.GetError() != "":
		logger.Warn("the plugin server refused InitPlugin", "error", outcome.GetError())
	}
}
