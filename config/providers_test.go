package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProvidersBringSecrets(t *testing.T) {
	dir := t.TempDir()
	secrets := filepath.Join(dir, "secrets.properties")
	require.NoError(t, os.WriteFile(secrets, []byte("pw=from file\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "token"), []byte("from directory"), 0o600))
	const classes = "org.apache.kafka.common.config.provider."
	set := func(extra ...string) map[string]string {
		return minimal(append([]string{"config.providers", "file,dir, env",
			"config.providers.file.class", classes + "FileConfigProvider",
			"config.providers.dir.class", classes + "DirectoryConfigProvider",
			"config.providers.env.class", classes + "EnvVarConfigProvider"}, extra...)...)
	}
	s, warnings, err := Load(nil, []string{"SECRET=from env"}, set("ssl.key.password", "${file:"+secrets+":pw}",
		"ssl.keystore.password", "<${dir:"+dir+":token}>", "ssl.truststore.password", "${env:SECRET}${other:x}", "broker.rack", "${plain"))
	require.NoError(t, err)
	require.Empty(t, warnings)
	require.Equal(t, "from file", string(SSLKeyPassword.Of(s)))
	require.Equal(t, "<from directory>", string(SSLKeystorePassword.Of(s)))
	require.Equal(t, "from env${other:x}", string(SSLTruststorePassword.Of(s)))
	require.Equal(t, "${plain", BrokerRack.Of(s))

	for _, bad := range []string{"${env:NONE}", "${file:" + secrets + ":none}", "${file:" + dir + "/none:x}", "${dir:" + dir + ":../token}"} {
		_, _, err := Load(nil, nil, set("ssl.key.password", bad))
		require.ErrorContains(t, err, "ssl.key.password="+bad+":")
	}
	_, _, err = Load(nil, nil, minimal("config.providers", "vault", "config.providers.vault.class", "x.VaultProvider"))
	require.ErrorContains(t, err, "config.providers.vault.class=x.VaultProvider is not allowed: want one of DirectoryConfigProvider")
	s, _, err = Load(nil, nil, minimal("broker.rack", "${env:HOME}"))
	require.NoError(t, err)
	require.Equal(t, "${env:HOME}", BrokerRack.Of(s), "nobody is asked without config.providers")
}
