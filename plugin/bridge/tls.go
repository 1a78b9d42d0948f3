package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/grpc/credentials"
)

// tlsFiles are the PEM files of mutual TLS. They are read anew for each connection, so that
// certificates may be renewed while the bridge runs.
type tlsFiles struct {
	certificate, key, authority string
	// serverName replaces the host of the server's address, if it is not empty.
	serverName string
}

// given says whether calls are to be encrypted.
func (f tlsFiles) given() bool { return f.certificate != "" }

// check wants all three files or none.
func (f tlsFiles) check() error {
	if f.certificate == "" && f.key == "" && f.authority == "" && f.serverName == "" {
		return nil
	}
	if f.certificate == "" || f.key == "" || f.authority == "" {
		return fmt.Errorf("--tls-cert, --tls-key and --tls-ca belong together: give all three or none")
	}
	return nil
}

// config reads the files as they are now.
func (f tlsFiles) config() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(f.certificate, f.key)
	// Files that are being exchanged do not fit for a moment.
	for attempt := 0; err != nil && attempt < 3; attempt++ {
		time.Sleep(20 * time.Millisecond)
		pair, err = tls.LoadX509KeyPair(f.certificate, f.key)
	}
	if err != nil {
		return nil, fmt.Errorf("--tls-cert %s and --tls-key %s: %w", f.certificate, f.key, err)
	}
	text, err := os.ReadFile(f.authority)
	if err != nil {
		return nil, fmt.Errorf("--tls-ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--tls-ca %s holds no certificate", f.authority)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		RootCAs:      roots,
		ServerName:   f.serverName,
		MinVersion:   tls.VersionTLS13,
	}, nil
}

// reloading are transport credentials made of the files as they are at each handshake.
type reloading struct{ files tlsFiles }

func (r *reloading) ClientHandshake(
	ctx context.Context, authority string, connection net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	config, err := r.files.config()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(config).ClientHandshake(ctx, authority, connection)
}

func (r *reloading) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, fmt.Errorf("the bridge is no server")
}

func (r *reloading) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls", ServerName: r.files.serverName}
}

func (r *reloading) Clone() credentials.TransportCredentials { return &reloading{files: r.files} }

// OverrideServerName is deprecated in gRPC, whose interface still asks for it.
func (r *reloading) OverrideServerName(name string) error {
	r.files.serverName = name
	return nil
}
