// Command bridge is the half of inference-rollouts that lives inside the Argo Rollouts controller.
//
// The controller loads a traffic-router plugin as a child process that speaks hashicorp/go-plugin's
// net/rpc, from an image without Python or shell. The bridge is that process: it forwards each call
// over gRPC to the plugin server and decides nothing itself.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	argorpc "github.com/argoproj/argo-rollouts/rollout/trafficrouting/plugin/rpc"
	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"

	"inference-rollouts.io/plugin/bridge/pb"
)

// protocol is the revision of plugin/proto that this bridge was built with;
// inference_plugin/introductions.py has the same one.
const protocol = 1

// version is set by the linker (-X main.version=...).
var version = "0.1.0"

// handshake and dispenseName are the controller's:
// argo-rollouts v1.10.2, rollout/trafficrouting/plugin/client/client.go.
var handshake = goplugin.HandshakeConfig{
	ProtocolVersion:  1,
	MagicCookieKey:   "ARGO_ROLLOUTS_RPC_PLUGIN",
	MagicCookieValue: "trafficrouter",
}

const dispenseName = "RpcTrafficRouterPlugin"

const byHand = `inference-rollouts traffic-router bridge %s

A plugin of the Argo Rollouts controller, which starts it; by hand it does nothing.
The controller finds it in the ConfigMap argo-rollouts-config:

  trafficRouterPlugins: |-
    - name: inference-rollouts/router
      location: file:///plugins/bridge
      args: ["--server", "unix:/run/inference-rollouts/plugin.sock"]

Arguments:
`

type options struct {
	server   string
	tls      tlsFiles
	name     string
	timeout  time.Duration
	logLevel hclog.Level
}

func main() {
	os.Exit(run(os.Args[1:], os.Stderr))
}

// run serves until the controller ends the process. stderr is the descriptor that the process
// started with: go-plugin replaces os.Stderr by a pipe that the controller discards.
func run(arguments []string, stderr *os.File) int {
	started := os.Getenv(handshake.MagicCookieKey) == handshake.MagicCookieValue
	opts, err := parse(arguments)
	if !started {
		if err != nil && !errors.Is(err, flag.ErrHelp) && len(arguments) > 0 {
			fmt.Fprintf(stderr, "bridge: %v\n", err)
			return 2
		}
		usage(stderr)
		return 0
	}

	logger := hclog.New(&hclog.LoggerOptions{
		Name:       "bridge",
		Level:      opts.logLevel,
		Output:     stderr,
		JSONFormat: true, // the controller parses each line and logs it at the line's own level
	})
	// go-plugin uses the standard logger here and there.
	log.SetFlags(0)
	log.SetOutput(logger.StandardWriter(&hclog.StandardLoggerOptions{InferLevels: true}))
	if err != nil {
		logger.Error("bad argument in trafficRouterPlugins of argo-rollouts-config", "error", err)
		return 2
	}

	connection, err := connect(opts.server, opts.tls)
	if err != nil {
		logger.Error("cannot use --server", "server", opts.server, "error", err)
		return 2
	}
	defer connection.Close()
	client := pb.NewTrafficRouterClient(connection)
	go keepConnected(connection, opts.server, logger, func() { announce(client, opts.timeout, logger) })
	go exitWithParent(logger)

	logger.Info("bridge starts", "version", version, "server", opts.server, "name", opts.name,
		"timeout", opts.timeout.String())
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: handshake,
		Logger:          logger,
		Plugins: map[string]goplugin.Plugin{
			dispenseName: &argorpc.RpcTrafficRouterPlugin{Impl: &forwarder{
				server:  client,
				target:  opts.server,
				name:    opts.name,
				timeout: opts.timeout,
				logger:  logger,
			}},
		},
	})
	return 0
}

func newFlags(opts *options, level *string) *flag.FlagSet {
	flags := flag.NewFlagSet("bridge", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&opts.server, "server", "", "where the plugin server listens, `unix:PATH` or, with --tls-..., dns:///HOST:PORT")
	flags.StringVar(&opts.tls.certificate, "tls-cert", "", "PEM `file` with the bridge's certificate chain")
	flags.StringVar(&opts.tls.key, "tls-key", "", "PEM `file` with its private key")
	flags.StringVar(&opts.tls.authority, "tls-ca", "",
		"PEM `file` with who issues the server's certificate")
	flags.StringVar(&opts.tls.serverName, "tls-server-name", "",
		"`name` in the server's certificate, if it is not the host of --server")
	flags.StringVar(&opts.name, "name", "inference-rollouts/router",
		"the plugin's `key` under trafficRouting.plugins, and its name in argo-rollouts-config")
	flags.DurationVar(&opts.timeout, "timeout", 8*time.Second,
		"longest `duration` of one call; the controller itself sets no limit")
	flags.StringVar(level, "log-level", "info", "trace, debug, info, warn or error")
	return flags
}

func parse(arguments []string) (options, error) {
	opts := options{logLevel: hclog.Info}
	var level string
	flags := newFlags(&opts, &level)
	if err := flags.Parse(arguments); err != nil {
		return opts, err
	}
	if flags.NArg() > 0 {
		return opts, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if opts.timeout <= 0 {
		return opts, fmt.Errorf("--timeout must be positive, got %v", opts.timeout)
	}
	opts.logLevel = hclog.LevelFromString(level)
	if opts.logLevel == hclog.NoLevel {
		opts.logLevel = hclog.Info
		return opts, fmt.Errorf("--log-level is none of trace, debug, info, warn, error: %q", level)
	}
	if err := opts.tls.check(); err != nil {
		return opts, err
	}
	return opts, checkTarget(opts.server, opts.tls.given())
}

func usage(stderr io.Writer) {
	fmt.Fprintf(stderr, byHand, version)
	var opts options
	var level string
	flags := newFlags(&opts, &level)
	flags.SetOutput(stderr)
	flags.PrintDefaults()
}

// exitWithParent ends the process once the controller is gone: go-plugin leaves that to the host,
// which cannot do it after a crash, and the orphan would keep its connection to the server for ever.
func exitWithParent(logger hclog.Logger) {
	parent := os.Getppid()
	for range time.Tick(time.Second) {
		if os.Getppid() != parent {
			logger.Info("the controller is gone, the bridge ends")
			os.Exit(0)
		}
	}
}
