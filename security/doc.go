// Package security decides who may come in: SASL mechanisms with their credentials, TLS with its key stores, and the principals
// that come out of both. What somebody may do once inside is the business of package security/acl.
//
// It reads the same settings, JAAS texts, key stores and znodes as Kafka. It knows nothing of the wire: a broker hands it tokens
// and connections.
//
// # What an outsider learns
//
// A wrong password and an unknown user look alike, cost the same and are answered after the same pause: PLAIN compares digests of
// equal length in constant time, also when there is no such user; SCRAM goes through the whole exchange with made-up credentials.
// Secrets are of type config.Password, which prints as stars; no error of this package quotes a token.
package security
