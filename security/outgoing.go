package security

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"

	"ottla/config"
)

// Outgoing is how a client secures its connections, by the settings that Java's clients have: security.protocol, sasl.mechanism,
// sasl.jaas.config, ssl.*.
type Outgoing struct {
	Mechanism string // "" without a login
	User      string
	Password  config.Password

	tls *tlsMaterial // nil in the clear
}

// NewOutgoing reads a client's settings. Others than those named above are passed over.
func NewOutgoing(settings map[string]string) (*Outgoing, error) {
	o := &Outgoing{}
	protocol := strings.ToUpper(settings["security.protocol"])
	if protocol == "" {
		protocol = "PLAINTEXT"
	}
	if !slices.Contains([]string{"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}, protocol) {
		return nil, fmt.Errorf("security.protocol=%s: want PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL", protocol)
	}
	if UsesSASL(protocol) {
		if err := o.login(settings); err != nil {
			return nil, err
		}
	}
	if UsesTLS(protocol) {
		static := map[string]string{config.ZookeeperConnect.Name: "unused:2181"}
		for name, text := range settings {
			if strings.HasPrefix(name, "ssl.") {
				static[name] = text
			}
		}
		s, err := config.FromMap(static)
		if err != nil {
			return nil, err
		}
		if o.tls, err = clientMaterial(s, ""); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *Outgoing) login(settings map[string]string) error {
	o.Mechanism = settings["sasl.mechanism"]
	if !slices.Contains(mechanisms, o.Mechanism) {
		return fmt.Errorf("sasl.mechanism=%s is not available; it may be %s", o.Mechanism, strings.Join(mechanisms, ", "))
	}
	modules, err := parseJAAS(settings["sasl.jaas.config"])
	if err != nil {
		return fmt.Errorf("sasl.jaas.config: %w", err)
	}
	o.User, o.Password, err = clientOf(modules, o.Mechanism)
	return err
}

// Wrap does the handshake of a new connection to a host, where the protocol is an encrypted one.
func (o *Outgoing) Wrap(ctx context.Context, host string, nc net.Conn) (net.Conn, error) {
	if o.tls == nil {
		return nc, nil
	}
	return o.tls.connect(ctx, host, nc)
}

// clientMaterial is what a side needs that only connects: whom it trusts, and a certificate of its own if it has one.
func clientMaterial(s *config.Snapshot, listener string) (*tlsMaterial, error) {
	certificate, err := keyOf(s, listener)
	if err != nil {
		return nil, err
	}
	roots, err := rootsOf(s, listener)
	if err != nil {
		return nil, err
	}
	base, err := versionsAndCiphers(config.SSLEnabledProtocols.For(s, listener), config.SSLCipherSuites.For(s, listener))
	if err != nil {
		return nil, err
	}
	m := &tlsMaterial{client: base}
	if certificate != nil {
		base.Certificates, m.leaf = []tls.Certificate{*certificate}, certificate.Leaf
	}
	base.RootCAs = roots
	m.verifyName = strings.EqualFold(config.SSLEndpointIdentificationAlgorithm.For(s, listener), "https")
	return m, nil
}
