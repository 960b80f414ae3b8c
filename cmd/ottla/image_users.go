package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"ottla/config"
	"ottla/security"
	"ottla/zkcoord"
)

// makeImageUsers makes the SCRAM users that variables of bitnami/kafka's image name, before the broker starts.
func makeImageUsers(ctx context.Context, s *config.Snapshot, environ []string, log zerolog.Logger) error {
	users, err := config.ImageUsers(environ)
	if err != nil {
		return err
	}
	mechanisms := slices.DeleteFunc(slices.Clone(config.SASLEnabledMechanisms.Of(s)), func(m string) bool { return !strings.HasPrefix(m, "SCRAM-") })
	if len(users) == 0 || len(mechanisms) == 0 {
		return nil
	}
	o, err := security.ZooKeeper(s, zkcoord.Options{
		Connect: config.ZookeeperConnect.Of(s), SessionTimeout: config.ZookeeperSessionTimeoutMs.Of(s),
		ConnectionTimeout: max(30*time.Second, config.ZookeeperConnectionTimeoutMs.Of(s)), Logger: zerolog.Nop(),
	})
	if err != nil {
		return err
	}
	zk, err := zkcoord.Connect(ctx, o)
	if err != nil {
		return err
	}
	defer zk.Close()
	for _, u := range users {
		name := zkcoord.SanitizeEntity(u.Name)
		settings, err := zkcoord.ReadConfig(zk.Session(), zkcoord.EntityUsers, name)
		if err != nil {
			return err
		}
		for _, m := range mechanisms {
			credential, err := security.NewScramCredential(m, string(u.Password), security.ScramIterationsMin)
			if err != nil {
				return err
			}
			settings[m] = credential.Format()
		}
		if err := zkcoord.SeedConfig(zk.Session(), zkcoord.EntityUsers, name, settings); err != nil {
			return err
		}
		log.Info().Str("user", u.Name).Msg("SCRAM user made as the environment says")
	}
	return nil
}
