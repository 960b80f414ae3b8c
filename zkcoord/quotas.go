package zkcoord

import (
	"errors"
	"strings"

	"ottla/internal/cluster"
)

// clientsOfUser stands between a user and one of its clients in a path.
const clientsOfUser = "/" + EntityClients + "/"

// ClientEntityPath is the entity type and the name below it of what has quotas, as in ConfigEntityPath.
func ClientEntityPath(e cluster.ClientEntity) (entityType, name string) {
	switch {
	case e.IP != "":
		return EntityIPs, SanitizeEntity(e.IP)
	case e.User == "":
		return EntityClients, SanitizeEntity(e.Client)
	case e.Client == "":
		return EntityUsers, SanitizeEntity(e.User)
	}
	return EntityUsers, SanitizeEntity(e.User) + clientsOfUser + SanitizeEntity(e.Client)
}

// ParseClientEntity is the way back from such a path.
func ParseClientEntity(entityType, name string) (e cluster.ClientEntity, err error) {
	user, client, both := strings.Cut(name, clientsOfUser)
	switch {
	case entityType == EntityUsers && both:
		if e.Client, err = DesanitizeEntity(client); err != nil {
			return e, err
		}
		e.User, err = DesanitizeEntity(user)
	case entityType == EntityUsers:
		e.User, err = DesanitizeEntity(name)
	case entityType == EntityClients:
		e.Client, err = DesanitizeEntity(name)
	case entityType == EntityIPs:
		e.IP, err = DesanitizeEntity(name)
	default:
		err = ErrInvalid
	}
	return e, err
}

// ReadClientEntities reads the settings of all users, clients, clients of users and addresses. Unreadable ones are named by a
// *BadNodesError beside the result.
func ReadClientEntities(s Session) (map[cluster.ClientEntity]map[string]string, error) {
	all := map[cluster.ClientEntity]map[string]string{}
	var bad badNodes
	for _, entityType := range []string{EntityUsers, EntityClients, EntityIPs} {
		names, err := EntityNames(s, entityType)
		if err != nil {
			return nil, err
		}
		if entityType == EntityUsers {
			of, err := clientsOfUsers(s, names)
			if err != nil {
				return nil, err
			}
			names = append(names, of...)
		}
		read, err := ReadConfigs(s, entityType, names)
		var unreadable *BadNodesError
		switch {
		case errors.As(err, &unreadable):
			bad = append(bad, unreadable.Nodes...)
		case err != nil:
			return nil, err
		}
		for name, settings := range read {
			e, err := ParseClientEntity(entityType, name)
			if err != nil {
				bad.add(ConfigEntityPath(entityType, name), err)
				continue
			}
			all[e] = settings
		}
	}
	return all, bad.err()
}

// clientsOfUsers names the users' clients, as U/clients/C.
func clientsOfUsers(s Session, users []string) ([]string, error) {
	var names []string
	for _, user := range users {
		clients, _, err := s.Children(ConfigEntityPath(EntityUsers, user) + "/" + EntityClients)
		if errors.Is(err, ErrNoNode) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, client := range clients {
			names = append(names, user+clientsOfUser+client)
		}
	}
	return names, nil
}
