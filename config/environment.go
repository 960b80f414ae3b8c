package config

import "strings"

// FromEnvironment maps variables as the common images do: KAFKA_A_B is a.b, two underscores are one, three a dash; with KAFKA_CFG_
// the same, and it wins. Variables that configure the images or the JVM are left alone. environ is as os.Environ gives it.
func FromEnvironment(environ []string) map[string]string {
	out := map[string]string{}
	for _, pass := range []string{"KAFKA_", "KAFKA_CFG_"} {
		for _, e := range environ {
			name, text, ok := strings.Cut(e, "=")
			rest, mapped := strings.CutPrefix(name, pass)
			if !ok || !mapped || rest == "" || notSettings[name] || link(name, text) || pass == "KAFKA_" && strings.HasPrefix(rest, "CFG_") {
				continue
			}
			out[keyOfVariable(rest)] = text
		}
	}
	return out
}

// notSettings are variables of the apache/kafka, confluentinc/cp-kafka and bitnami/kafka images that name no key.
var notSettings = setOf(`KAFKA_VERSION KAFKA_HOME KAFKA_HEAP_OPT KAFKA_HEAP_OPTS KAFKA_OPTS KAFKA_JMX_OPTS KAFKA_JMX_PORT KAFKA_JMX_HOSTNAME
	KAFKA_JVM_PERFORMANCE_OPTS KAFKA_GC_LOG_OPTS KAFKA_LOG4J_OPTS KAFKA_LOG4J_ROOT_LOGLEVEL KAFKA_LOG4J_LOGGERS
	KAFKA_TOOLS_LOG4J_LOGLEVEL KAFKA_ZOOKEEPER_CLIENT_CNXN_SOCKET KAFKA_CLIENT_USERS KAFKA_CLIENT_PASSWORDS KAFKA_INTER_BROKER_USER
	KAFKA_INTER_BROKER_PASSWORD KAFKA_CONTROLLER_USER KAFKA_CONTROLLER_PASSWORD KAFKA_ZOOKEEPER_USER KAFKA_ZOOKEEPER_PASSWORD
	KAFKA_ZOOKEEPER_PROTOCOL KAFKA_TLS_TYPE KAFKA_TLS_CLIENT_AUTH KAFKA_CERTIFICATE_PASSWORD KAFKA_ENABLE_KRAFT
	KAFKA_KRAFT_CLUSTER_ID KAFKA_INITIAL_ADMIN_USER KAFKA_BASE_DIR KAFKA_VOLUME_DIR KAFKA_DATA_DIR KAFKA_CONF_DIR KAFKA_CONF_FILE
	KAFKA_SSL_KEYSTORE_FILENAME KAFKA_SSL_KEYSTORE_CREDENTIALS KAFKA_SSL_KEY_CREDENTIALS KAFKA_SSL_TRUSTSTORE_FILENAME
	KAFKA_SSL_TRUSTSTORE_CREDENTIALS KAFKA_MOUNTED_CONF_DIR KAFKA_CERTS_DIR KAFKA_DAEMON_USER KAFKA_DAEMON_GROUP KAFKA_INITSCRIPTS_DIR`)

// link recognises what Kubernetes and Docker links add for a service named kafka: KAFKA_PORT=tcp://10.0.0.1:9092, KAFKA_SERVICE_HOST …
func link(name, text string) bool {
	return name == "KAFKA_PORT" && strings.Contains(text, "://") || strings.HasPrefix(name, "KAFKA_SERVICE_HOST") ||
		strings.HasPrefix(name, "KAFKA_SERVICE_PORT") || strings.HasPrefix(name, "KAFKA_PORT_") && strings.Contains(name, "_TCP")
}

func setOf(names string) map[string]bool {
	out := map[string]bool{}
	for name := range strings.FieldsSeq(names) {
		out[name] = true
	}
	return out
}

// keyOfVariable turns A_B into a.b. A key that has capitals is found by its letters alone.
func keyOfVariable(rest string) string {
	name := strings.ReplaceAll(strings.ToLower(rest), "_", ".")
	name = strings.ReplaceAll(name, "...", "-")
	name = strings.ReplaceAll(name, "..", "_")
	if known := byLetters[name]; known != "" {
		return known
	}
	return name
}

// byLetters finds the keys with capitals; there is no other way to name them in a variable.
var byLetters = map[string]string{"zookeeper.clientcnxnsocket": "zookeeper.clientCnxnSocket"}
