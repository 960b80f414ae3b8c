package zkcoord

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"ottla/internal/cluster"
)

// The types of entities that have a configuration, as they stand in paths. Names of users, clients and IPs are sanitised
// (SanitizeEntity). A client of a user is the entity ("users", USER+"/clients/"+CLIENT).
const (
	EntityTopics  = "topics"
	EntityBrokers = "brokers"
	EntityUsers   = "users"
	EntityClients = "clients"
	EntityIPs     = "ips"
	DefaultEntity = cluster.DefaultEntity
)

// ErrNoController: configurations are written only while there is a controller, and not during a migration to KRaft.
var ErrNoController = errors.New("there is no controller, or the cluster is being migrated to KRaft")

// SanitizeEntity encodes a user, client or IP for use in a path: URL-encoding, a space is %20, an asterisk %2A.
func SanitizeEntity(name string) string {
	if name == DefaultEntity {
		return name
	}
	// What Java's URLEncoder and Go's QueryEscape keep differs in two characters.
	return strings.NewReplacer("+", "%20", "~", "%7E", "*", "%2A").Replace(url.QueryEscape(name))
}

// DesanitizeEntity is the way back.
func DesanitizeEntity(name string) (string, error) {
	if name == DefaultEntity {
		return name, nil
	}
	plain, err := url.QueryUnescape(name)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return plain, nil
}

// EncodeConfig writes the payload of a configuration, version 1.
func EncodeConfig(config map[string]string) []byte {
	b := appendObject([]byte(`{"version":1,"config":`), config, appendQuoted)
	return append(b, '}')
}

// DecodeConfig reads the payload of a configuration. No data is an empty configuration.
func DecodeConfig(data []byte) (map[string]string, error) {
	if len(data) == 0 {
		return map[string]string{}, nil
	}
	o, err := parseObject(data)
	if err != nil {
		return nil, err
	}
	if !o.has("config") {
		return map[string]string{}, nil
	}
	return o.strings("config")
}

// ReadConfig reads the configuration of an entity; one that has none is empty.
func ReadConfig(s Session, entityType, name string) (map[string]string, error) {
	configs, err := ReadConfigs(s, entityType, []string{name})
	if err != nil {
		return nil, err
	}
	if configs[name] == nil {
		return map[string]string{}, nil
	}
	return configs[name], nil
}

// ReadConfigs reads the configurations of many entities of a type; those without a znode are missing in the result. Unreadable
// ones are named by a *BadNodesError beside the result.
func ReadConfigs(s Session, entityType string, names []string) (map[string]map[string]string, error) {
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = ConfigEntityPath(entityType, name)
	}
	configs := make(map[string]map[string]string, len(names))
	err := readMany(s, paths, func(i int, r GetResult) error {
		config, err := DecodeConfig(r.Data)
		if err != nil {
			return err
		}
		configs[names[i]] = config
		return nil
	})
	return configs, err
}

// EntityNames lists the entities of a type that have a configuration, sorted, as they stand in the path.
func EntityNames(s Session, entityType string) ([]string, error) {
	names, _, err := s.Children(ConfigPath + "/" + entityType)
	if errors.Is(err, ErrNoNode) {
		return nil, nil
	}
	slices.Sort(names)
	return names, err
}

// WriteConfig replaces the configuration of an entity and then tells all brokers. It is fenced by the controller's znode:
// ErrNoController without one. Concurrent writers: the last one wins. An empty configuration of a user, client or IP without
// children removes its znode. Source: KIP-866 (the fence), KAFKA-14285.
func WriteConfig(s Session, entityType, name string, config map[string]string) error {
	for {
		err := writeConfigOnce(s, entityType, name, config)
		if err == nil {
			return NotifyConfigChange(s, entityType+"/"+name)
		}
		// The controller changed, the znode came or went, the answer was lost: writing the same again is harmless.
		if !retryable(err) {
			return err
		}
	}
}

func writeConfigOnce(s Session, entityType, name string, config map[string]string) error {
	controller, found, err := ReadController(s)
	if err != nil {
		return err
	}
	if !found || controller.KRaftEpoch > 0 {
		return ErrNoController
	}
	path := ConfigEntityPath(entityType, name)
	found, stat, err := s.Exists(path)
	if err != nil {
		return err
	}
	check := CheckOp(ControllerPath, controller.Version)
	if len(config) == 0 && removable(entityType) && stat.NumChildren == 0 {
		if !found {
			return nil
		}
		_, err = s.Multi(check, DeleteOp(path, stat.Version))
		if err != nil && !errors.Is(err, ErrNoNode) {
			return err
		}
		return removeEmptyUser(s, name)
	}
	if !found {
		return s.CreateAll(path, EncodeConfig(config))
	}
	_, err = s.Multi(check, SetOp(path, EncodeConfig(config), AnyVersion))
	return err
}

// SeedConfig replaces the configuration of an entity without asking for a controller: for a cluster that has none yet, as Kafka's tool
// does with --zookeeper. Brokers that run hear of it.
func SeedConfig(s Session, entityType, name string, config map[string]string) error {
	path := ConfigEntityPath(entityType, name)
	for {
		err := s.CreateAll(path, EncodeConfig(config))
		if errors.Is(err, ErrNodeExists) {
			_, err = s.Set(path, EncodeConfig(config), AnyVersion)
		}
		switch {
		case retryable(err):
		case err != nil:
			return err
		default:
			if err := s.CreateAll(ConfigChangesPath, nil); err != nil && !errors.Is(err, ErrNodeExists) {
				return err
			}
			return NotifyConfigChange(s, entityType+"/"+name)
		}
	}
}

func removable(entityType string) bool {
	return entityType == EntityUsers || entityType == EntityClients || entityType == EntityIPs
}

// removeEmptyUser removes what is left of a user whose last client has gone. Whoever puts something there meanwhile wins.
func removeEmptyUser(s Session, name string) error {
	user, _, ofUser := strings.Cut(name, clientsOfUser)
	if !ofUser {
		return nil
	}
	path := ConfigEntityPath(EntityUsers, user)
	for _, p := range []string{path + "/" + EntityClients, path} {
		data, stat, err := s.Get(p)
		if errors.Is(err, ErrNoNode) {
			continue
		}
		if err != nil {
			return err
		}
		if settings, err := DecodeConfig(data); err != nil || len(settings) > 0 || stat.NumChildren > 0 {
			return nil
		}
		switch err := s.Delete(p, stat.Version); {
		case errors.Is(err, ErrNotEmpty), errors.Is(err, ErrBadVersion):
			return nil
		case err != nil && !errors.Is(err, ErrNoNode):
			return err
		}
	}
	return nil
}
