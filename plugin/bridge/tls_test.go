package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"inference-rollouts.io/plugin/bridge/pb"
)

// authority issues certificates for a test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, certificate, text := issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	return &authority{certificate, key, text}
}

func issue(
	t *testing.T, template *x509.Certificate, issuer *authority,
) (*ecdsa.PrivateKey, *x509.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, parentKey := template, key
	if issuer != nil {
		parent, parentKey = issuer.certificate, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// write puts a certificate of this name and whom it trusts into three files.
func (a *authority) write(t *testing.T, folder, name string, trusted *authority) tlsFiles {
	t.Helper()
	key, _, text := issue(t, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		DNSNames:    []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := tlsFiles{
		certificate: filepath.Join(folder, name+".crt"),
		key:         filepath.Join(folder, name+".key"),
		authority:   filepath.Join(folder, name+"-ca.crt"),
	}
	for path, content := range map[string][]byte{
		files.certificate: text,
		files.key:         pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
		files.authority:   trusted.pem,
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// serveTLS runs the server on a port of its own; its files are read at each handshake too.
func serveTLS(t *testing.T, server pb.TrafficRouterServer, files tlsFiles, highest uint16) string {
	t.Helper()
	config := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now, err := files.config()
		if err != nil {
			return nil, err
		}
		return &tls.Config{
			Certificates: now.Certificates, ClientCAs: now.RootCAs, NextProtos: []string{"h2"},
			ClientAuth: tls.RequireAndVerifyClientCert, MaxVersion: highest,
		}, nil
	}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	running := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(config)),
		// Connections end soon, as those of the real server do after minutes.
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: 200 * time.Millisecond, MaxConnectionAgeGrace: time.Second,
		}),
	)
	pb.RegisterTrafficRouterServer(running, server)
	done := make(chan struct{})
	go func() { defer close(done); _ = running.Serve(listener) }()
	t.Cleanup(func() { running.Stop(); <-done })
	return "dns:///" + listener.Addr().String()
}

func flagsOf(target string, files tlsFiles) []string {
	return []string{"--server", target, "--tls-cert", files.certificate, "--tls-key", files.key,
		"--tls-ca", files.authority}
}

func TestCallsPassOverMutualTLS(t *testing.T) {
	ours, folder := newAuthority(t), t.TempDir()
	server := &fakeServer{}
	target := serveTLS(t, server, ours.write(t, folder, "server", ours), tls.VersionTLS13)
	bridge := startBridge(t, flagsOf(target, ours.write(t, folder, "bridge", ours))...)
	eventually(t, "a call passes", func() bool {
		return !bridge.RemoveManagedRoutes(sampleRollout()).HasError()
	})
	if server.received() == nil {
		t.Error("the server received nothing")
	}
}

func TestWhoIsNotTrustedGetsNoAnswer(t *testing.T) {
	ours, theirs, folder := newAuthority(t), newAuthority(t), t.TempDir()
	good := ours.write(t, folder, "server", ours)
	cases := map[string]struct {
		server, bridge tlsFiles
		highest        uint16
		extra          []string
		want           string
	}{
		"a bridge of another authority": {
			server: good, bridge: theirs.write(t, folder, "stranger", ours), want: "certificate",
		},
		"a server of another authority": {
			server: theirs.write(t, folder, "impostor", ours),
			bridge: ours.write(t, folder, "bridge", ours),
			want:   "certificate signed by unknown authority",
		},
		"a server of another name": {
			server: good, bridge: ours.write(t, folder, "b2", ours),
			extra: []string{"--tls-server-name", "elsewhere"}, want: "not elsewhere",
		},
		"a server without TLS 1.3": {
			server: good, bridge: ours.write(t, folder, "b3", ours), highest: tls.VersionTLS12,
			want: "protocol version",
		},
		"a bridge whose files are gone": {
			server: good, bridge: tlsFiles{"no.crt", "no.key", "no-ca.crt", ""}, want: "no.crt",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			server := &fakeServer{}
			target := serveTLS(t, server, c.server, c.highest)
			bridge := startBridge(t, append(flagsOf(target, c.bridge), c.extra...)...)
			var text string
			eventually(t, "the reason is told", func() bool {
				text = bridge.UpdateHash(sampleRollout(), "h3", "h2", nil).ErrorString
				return strings.Contains(text, c.want)
			})
			if server.received() != nil {
				t.Errorf("the server received a call, the bridge says %q", text)
			}
		})
	}
}

func TestRenewedCertificatesAreTakenWithoutALostCall(t *testing.T) {
	first, second, folder := newAuthority(t), newAuthority(t), t.TempDir()
	both := &authority{pem: append(append([]byte{}, first.pem...), second.pem...)}
	server := &fakeServer{}
	files := first.write(t, folder, "server", both)
	target := serveTLS(t, server, files, tls.VersionTLS13)
	mine := first.write(t, folder, "bridge", both)
	bridge := startBridge(t, flagsOf(target, mine)...)
	call := func() string { return bridge.RemoveManagedRoutes(sampleRollout()).ErrorString }
	eventually(t, "a call passes", func() bool { return call() == "" })

	until := func(what string, holds func() bool) {
		limit := time.Now().Add(20 * time.Second)
		for !holds() {
			if text := call(); text != "" {
				t.Fatalf("a call was lost: %s", text)
			}
			if time.Now().After(limit) {
				t.Fatalf("not within 20 s: %s", what)
			}
		}
	}
	until("several connections", func() bool { return server.announcements() > 2 })
	// Both sides change to the second authority, one after the other, then forget the first.
	second.write(t, folder, "server", both)
	second.write(t, folder, "bridge", both)
	second.write(t, folder, "server", second)
	second.write(t, folder, "bridge", second)
	before := server.announcements()
	until("new connections after the change", func() bool { return server.announcements() > before+2 })
}
