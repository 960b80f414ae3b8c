package security

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"ottla/config"
	"ottla/zkcoord"
)

// ZooKeeper adds to the options of a connection to the ensemble how it is secured: TLS (zookeeper.ssl.*), with a certificate of its own or
// without, an identity by the digest scheme, and whether what is created is protected (zookeeper.set.acl).
func ZooKeeper(s *config.Snapshot, o zkcoord.Options) (zkcoord.Options, error) {
	o.Digest = string(config.OttlaZookeeperDigest.Of(s))
	if o.Digest != "" && !strings.Contains(o.Digest, ":") {
		return o, fmt.Errorf("%s: want USER:PASSWORD", config.OttlaZookeeperDigest.Name)
	}
	o.Protect = config.ZookeeperSetACL.Of(s)
	if !config.ZookeeperSSLClientEnable.Of(s) {
		return o, needIdentity(o, false)
	}
	m, err := ensembleMaterial(s)
	if err != nil {
		return o, fmt.Errorf("TLS to ZooKeeper: %w", err)
	}
	o.Dial = func(network, address string, timeout time.Duration) (net.Conn, error) {
		nc, err := net.DialTimeout(network, address, timeout)
		if err != nil {
			return nil, err
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			_ = nc.Close()
			return nil, err
		}
		ctx, cancel := context.WithTimeout(context.Background(), max(timeout, time.Second))
		defer cancel()
		c, err := m.connect(ctx, host, nc)
		if err != nil {
			_ = nc.Close()
			return nil, err
		}
		return c, nil
	}
	return o, needIdentity(o, m.leaf != nil)
}

func needIdentity(o zkcoord.Options, certificate bool) error {
	if o.Protect && o.Digest == "" && !certificate {
		return errors.New("zookeeper.set.acl=true needs an identity to protect by: set ottla.zookeeper.digest=USER:PASSWORD, or zookeeper.ssl.client.enable and zookeeper.ssl.keystore.location")
	}
	return nil
}

// ensembleMaterial reads the zookeeper.ssl.* settings, which mean what those without the prefix do.
func ensembleMaterial(s *config.Snapshot) (*tlsMaterial, error) {
	protocols := config.ZookeeperSSLEnabledProtocols.Of(s)
	if len(protocols) == 0 {
		protocols = []string{config.ZookeeperSSLProtocol.Of(s)}
	}
	static := map[string]string{
		config.ZookeeperConnect.Name:                   "unused:2181",
		config.SSLEnabledProtocols.Name:                strings.Join(protocols, ","),
		config.SSLEndpointIdentificationAlgorithm.Name: config.ZookeeperSSLEndpointIdentificationAlgorithm.Of(s),
	}
	for name, text := range map[string]string{
		config.SSLCipherSuites.Name:       strings.Join(config.ZookeeperSSLCipherSuites.Of(s), ","),
		config.SSLKeystoreLocation.Name:   config.ZookeeperSSLKeystoreLocation.Of(s),
		config.SSLKeystorePassword.Name:   string(config.ZookeeperSSLKeystorePassword.Of(s)),
		config.SSLTruststoreLocation.Name: config.ZookeeperSSLTruststoreLocation.Of(s),
		config.SSLTruststorePassword.Name: string(config.ZookeeperSSLTruststorePassword.Of(s)),
	} {
		if text != "" {
			static[name] = text
		}
	}
	read, err := config.FromMap(static)
	if err != nil {
		return nil, err
	}
	return clientMaterial(read, "")
}
