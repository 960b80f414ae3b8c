package security

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ottla/config"
)

func TestJAASText(t *testing.T) {
	for text, want := range map[string][]map[string]string{
		`org.apache.kafka.common.security.plain.PlainLoginModule required username="admin" password="s3;cr\"et" user_admin="s3;cr\"et";`: {
			{"username": "admin", "password": `s3;cr"et`, "user_admin": `s3;cr"et`},
		},
		"a.B required\n\tx = y // end\n /* more */ z='q';\nc.D optional;": {{"x": "y", "z": "q"}, {}},
		`a.B required p="\\\t\u0041\101";`:                                {{"p": "\\\tu0041A"}},
		`a.B required user_alice="pässwörd" ;`:                            {{"user_alice": "pässwörd"}},
	} {
		got, err := parseJAAS(text)
		require.NoError(t, err, text)
		var options []map[string]string
		for _, m := range got {
			options = append(options, m.options)
		}
		require.Empty(t, cmp.Diff(want, options), text)
	}
}

func TestJAASTextThatIsWrongIsRefusedWithoutQuotingIt(t *testing.T) {
	for _, text := range []string{
		"", "   // nothing", "hunter2", "a.B required password=hunter2", `a.B required password="hunter2;`, "a.B required password;",
		"a.B perhaps x=hunter2;", `"hunter2" required;`, "a.B required =hunter2;", `a.B required password="hunter2\`, "/* hunter2", "{};",
	} {
		_, err := parseJAAS(text)
		require.Error(t, err, text)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestJAASFile(t *testing.T) {
	contexts, err := parseJAASFile(`
# as images write it
KafkaServer {
   org.apache.kafka.common.security.plain.PlainLoginModule required
   username="adminplain"
   password="admin-secret"
   user_adminplain="admin-secret";
   org.apache.kafka.common.security.scram.ScramLoginModule required
   username="adminscram"
   password="admin-secret-512";
};
sasl_plain.KafkaServer { a.B required; };
Client {};
`)
	require.NoError(t, err)
	require.Len(t, contexts, 3)
	require.Len(t, contexts["KafkaServer"], 2)
	require.Equal(t, "adminscram", contexts["KafkaServer"][1].options["username"])
	for _, wrong := range []string{"{", "A", "A {", "A { a.B required; }", "A {}; A {};", "A { a.B required; ", "= {};"} {
		_, err := parseJAASFile(wrong)
		require.Error(t, err, wrong)
	}
}

func TestJAASFileIsFoundInJVMOptions(t *testing.T) {
	for options, want := range map[string]string{
		"": "",
		"-Xmx1g -Djava.security.auth.login.config=/opt/kafka/jaas.conf -Dx=y":       "/opt/kafka/jaas.conf",
		`"-Djava.security.auth.login.config=/a"`:                                    "/a",
		`-Djava.security.auth.login.config="/a"`:                                    "/a",
		"-Djava.security.auth.login.config==file:/a":                                "/a",
		"-Djava.security.auth.login.config=/a -Djava.security.auth.login.config=/b": "/b",
	} {
		require.Equal(t, want, jaasFileOf(options), options)
	}
}

func FuzzJAAS(f *testing.F) {
	f.Add("KafkaServer { a.B required x=\"y\"; };")
	f.Add("a.B required x='\\101' /* c */;")
	f.Fuzz(func(t *testing.T, text string) {
		if modules, err := parseJAAS(text); err == nil && len(modules) == 0 {
			t.Fatal("no modules and no error")
		}
		contexts, err := parseJAASFile(text)
		if err == nil && len(contexts) > len(text) {
			t.Fatal("more contexts than characters")
		}
	})
}

func TestSecretsDoNotPrint(t *testing.T) {
	modules, err := parseJAAS(`a.B required password="hunter2";`)
	require.NoError(t, err)
	c, err := NewScramCredential(ScramSHA256, "hunter2", 4096)
	require.NoError(t, err)
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		require.NotContains(t, fmt.Sprintf(format, modules), "hunter2")
		require.NotContains(t, fmt.Sprintf(format, c), fmt.Sprintf(format, c.StoredKey))
	}
}

// snapshot makes settings with one listener LOGIN of SASL_PLAINTEXT beside a plain one.
func snapshot(t *testing.T, settings map[string]string) *config.Snapshot {
	t.Helper()
	all := map[string]string{
		"zookeeper.connect":              "localhost:2181",
		"log.dirs":                       t.TempDir(),
		"listeners":                      "PLAINTEXT://localhost:9092,LOGIN://localhost:9093",
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,LOGIN:SASL_PLAINTEXT",
		"sasl.enabled.mechanisms":        "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
	}
	for k, v := range settings {
		all[k] = v
	}
	s, err := config.FromMap(all)
	require.NoError(t, err)
	return s
}

func noEnvironment(string) string { return "" }

func TestJAASOfTheListenersMechanismComesBeforeTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "jaas.conf")
	require.NoError(t, os.WriteFile(file, []byte(`
KafkaServer { org.apache.kafka.common.security.plain.PlainLoginModule required username="file" password="f" user_file="f"; };
other.KafkaServer { org.apache.kafka.common.security.plain.PlainLoginModule required username="other" password="o" user_other="o"; };
`), 0o600))
	getenv := func(name string) string {
		return map[string]string{"KAFKA_OPTS": "-Djava.security.auth.login.config=" + file}[name]
	}
	jaas := func(user string) string {
		return plainModule + ` required username="` + user + `" password="p" user_` + user + `="p";`
	}
	s := snapshot(t, map[string]string{
		"listener.name.login.plain.sasl.jaas.config": jaas("own"),
		"sasl.jaas.config":                           jaas("global"),
	})
	l := readLogins(getenv)
	for listener, want := range map[string]string{"LOGIN": "own", "OTHER": "other", "THIRD": "file"} {
		modules, err := l.of(s, listener, Plain)
		require.NoError(t, err)
		require.Equal(t, want, modules[0].options["username"], listener)
	}
	modules, err := readLogins(noEnvironment).of(s, "THIRD", Plain)
	require.NoError(t, err)
	require.Equal(t, "global", modules[0].options["username"])

	_, err = readLogins(func(string) string { return "-Djava.security.auth.login.config=/does/not/exist" }).of(s, "THIRD", Plain)
	require.ErrorContains(t, err, "/does/not/exist")
}

func TestListenerWithoutCredentialsIsRefused(t *testing.T) {
	for _, row := range []struct {
		settings map[string]string
		want     string
	}{
		{map[string]string{"sasl.enabled.mechanisms": "GSSAPI"}, "GSSAPI is not available"},
		{map[string]string{"sasl.enabled.mechanisms": "PLAIN,OAUTHBEARER", "sasl.jaas.config": plainModule + " required;"}, "OAUTHBEARER is not available"},
		{nil, "no PlainLoginModule"},
		{map[string]string{"sasl.jaas.config": scramModule + " required;"}, "no PlainLoginModule"},
		{map[string]string{"listener.name.login.plain.sasl.jaas.config": "hunter2"}, "listener.name.login.plain.sasl.jaas.config"},
	} {
		s := snapshot(t, row.settings)
		err := NewSASL(func() *config.Snapshot { return s }, &Credentials{}, noEnvironment).Check("LOGIN")
		require.ErrorContains(t, err, row.want)
		require.NotContains(t, err.Error(), "hunter2")
	}
	s := snapshot(t, map[string]string{"sasl.enabled.mechanisms": "SCRAM-SHA-256"})
	require.NoError(t, NewSASL(func() *config.Snapshot { return s }, &Credentials{}, noEnvironment).Check("LOGIN"))
}
