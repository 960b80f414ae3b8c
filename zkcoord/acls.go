package zkcoord

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// ACL is one entry of an ACL znode, with the words that stand there: permission Allow or Deny, operation Read, AlterConfigs, All, …
type ACL struct {
	Principal  string // like User:alice
	Permission string
	Operation  string
	Host       string // address, or *
}

// ACLResource is a resource that has ACLs. Type is as in paths: Topic, Group, Cluster, TransactionalId, DelegationToken, User.
type ACLResource struct {
	Type     string
	Name     string
	Prefixed bool // stands for all names with this prefix
}

// ACLResourceTypes are the types of resources, as they stand in paths.
var ACLResourceTypes = []string{"Topic", "Group", "Cluster", "TransactionalId", "DelegationToken", "User"}

const (
	prefixedACLPath         = ExtendedACLPath + "/prefixed"
	aclChangePrefix         = ACLChangesPath + "/acl_changes_"
	extendedACLChangePrefix = ExtendedACLChangesPath + "/acl_changes_"
)

// ACLResourcePath holds the ACLs of a resource.
func ACLResourcePath(r ACLResource) string {
	root := ACLPath
	if r.Prefixed {
		root = prefixedACLPath
	}
	return root + "/" + r.Type + "/" + r.Name
}

// EnsureACLPaths creates the containers, as every authorizer does at its start.
func EnsureACLPaths(s Session) error {
	paths := []string{ACLChangesPath, ExtendedACLChangesPath}
	for _, t := range ACLResourceTypes {
		paths = append(paths, ACLPath+"/"+t, prefixedACLPath+"/"+t)
	}
	for _, path := range paths {
		if err := retryLost(func() error { return s.CreateAll(path, nil) }); err != nil && !errors.Is(err, ErrNodeExists) {
			return err
		}
	}
	return nil
}

// EncodeACLs writes the payload of a resource's ACLs, version 1.
func EncodeACLs(acls []ACL) []byte {
	b := appendList([]byte(`{"acls":`), acls, func(b []byte, a ACL) []byte {
		b = appendQuoted(append(b, `{"principal":`...), a.Principal)
		b = appendQuoted(append(b, `,"permissionType":`...), a.Permission)
		b = appendQuoted(append(b, `,"host":`...), a.Host)
		b = appendQuoted(append(b, `,"operation":`...), a.Operation)
		return append(b, '}')
	})
	return append(b, `,"version":1}`...)
}

// DecodeACLs reads the payload of a resource's ACLs. No data is no ACL; a version other than 1 is refused, as Kafka refuses it.
func DecodeACLs(data []byte) ([]ACL, error) {
	if len(data) == 0 {
		return nil, nil
	}
	o, err := parseObject(data)
	if err != nil {
		return nil, err
	}
	version, err := required[int32](o, "version")
	if err != nil {
		return nil, err
	}
	if version != 1 {
		return nil, fmt.Errorf("%w: version %d", ErrInvalid, version)
	}
	list, err := required[[]object](o, "acls")
	if err != nil {
		return nil, err
	}
	acls := make([]ACL, len(list))
	for i, entry := range list {
		for key, to := range map[string]*string{
			"principal": &acls[i].Principal, "permissionType": &acls[i].Permission, "host": &acls[i].Host, "operation": &acls[i].Operation,
		} {
			if *to, err = required[string](entry, key); err != nil {
				return nil, err
			}
		}
	}
	return acls, nil
}

// ACLResources lists the resources that have a znode.
func ACLResources(s Session) ([]ACLResource, error) {
	var out []ACLResource
	for _, prefixed := range []bool{false, true} {
		for _, t := range ACLResourceTypes {
			r := ACLResource{Type: t, Prefixed: prefixed}
			names, _, err := s.Children(strings.TrimSuffix(ACLResourcePath(r), "/"))
			if err != nil && !errors.Is(err, ErrNoNode) {
				return nil, err
			}
			for _, r.Name = range names {
				out = append(out, r)
			}
		}
	}
	return out, nil
}

// ReadACLs reads the ACLs of resources; those without a znode are missing in the result. Unreadable ones are named by a
// *BadNodesError beside it.
func ReadACLs(s Session, resources []ACLResource) (map[ACLResource][]ACL, error) {
	paths := make([]string, len(resources))
	for i, r := range resources {
		paths[i] = ACLResourcePath(r)
	}
	out := make(map[ACLResource][]ACL, len(resources))
	err := readMany(s, paths, func(i int, r GetResult) error {
		acls, err := DecodeACLs(r.Data)
		if err == nil {
			out[resources[i]] = acls
		}
		return err
	})
	return out, err
}

// UpdateACLs changes the ACLs of a resource and tells all brokers. change gets what is there and returns what shall be; without a
// difference (same = true) nothing is written. It may be called again when somebody else was faster. A resource without ACLs loses its
// znode.
func UpdateACLs(s Session, r ACLResource, change func([]ACL) (next []ACL, same bool)) ([]ACL, error) {
	for {
		next, same, err := updateACLsOnce(s, r, change)
		switch {
		case err == nil && same:
			return next, nil
		case err == nil:
			return next, NotifyACLChange(s, r)
		case !retryable(err):
			return nil, err
		}
		time.Sleep(aclRetry) // as Kafka: whoever was faster may have more to do
	}
}

// aclRetry is the pause after somebody else's change came in between.
const aclRetry = 20 * time.Millisecond

func updateACLsOnce(s Session, r ACLResource, change func([]ACL) ([]ACL, bool)) (next []ACL, same bool, err error) {
	path := ACLResourcePath(r)
	data, stat, err := s.Get(path)
	found := err == nil
	if err != nil && !errors.Is(err, ErrNoNode) {
		return nil, false, err
	}
	before, err := DecodeACLs(data)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", path, err)
	}
	next, same = change(before)
	switch {
	case same:
	case len(next) == 0 && found:
		err = s.Delete(path, stat.Version)
	case len(next) == 0:
	case found:
		_, err = s.Set(path, EncodeACLs(next), stat.Version)
	default:
		err = s.CreateAll(path, EncodeACLs(next))
	}
	return next, same, err
}

// NotifyACLChange tells all brokers to read a resource's ACLs again.
func NotifyACLChange(s Session, r ACLResource) error {
	if r.Prefixed {
		return notify(s, extendedACLChangePrefix, encodeExtendedACLChange(r))
	}
	return notify(s, aclChangePrefix, encodeACLChange(r))
}

// upperType is the type's name in notifications: TransactionalId is TRANSACTIONAL_ID.
func upperType(t string) string {
	var b strings.Builder
	for i, c := range t {
		if i > 0 && c >= 'A' && c <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(c)
	}
	return strings.ToUpper(b.String())
}

// typeOfName is the way back. Old brokers wrote Topic:name.
func typeOfName(name string) (string, error) {
	for _, t := range ACLResourceTypes {
		if name == upperType(t) || name == t {
			return t, nil
		}
	}
	return "", fmt.Errorf("%w: resource type %q", ErrInvalid, name)
}

func encodeACLChange(r ACLResource) []byte { return []byte(upperType(r.Type) + ":" + r.Name) }

func decodeACLChange(data []byte) (ACLResource, error) {
	kind, name, ok := strings.Cut(string(data), ":")
	t, err := typeOfName(kind)
	if !ok || err != nil {
		return ACLResource{}, fmt.Errorf("%w: ACL change %q", ErrInvalid, data)
	}
	return ACLResource{Type: t, Name: name}, nil
}

func encodeExtendedACLChange(r ACLResource) []byte {
	b := appendQuoted([]byte(`{"version":1,"resourceType":`), upperType(r.Type))
	b = appendQuoted(append(b, `,"name":`...), r.Name)
	return append(b, `,"patternType":"PREFIXED"}`...)
}

func decodeExtendedACLChange(data []byte) (r ACLResource, err error) {
	o, err := parseObject(data)
	if err != nil {
		return r, err
	}
	version, err := required[int32](o, "version")
	if err != nil {
		return r, err
	}
	if version > 1 {
		return r, fmt.Errorf("%w: version %d", ErrInvalid, version)
	}
	fields := map[string]string{}
	for _, key := range []string{"resourceType", "name", "patternType"} {
		if fields[key], err = required[string](o, key); err != nil {
			return r, err
		}
	}
	if fields["patternType"] != "PREFIXED" {
		return r, fmt.Errorf("%w: pattern type %q", ErrInvalid, fields["patternType"])
	}
	r.Type, err = typeOfName(fields["resourceType"])
	r.Name, r.Prefixed = fields["name"], true
	return r, err
}

// ACLChanges follows both containers of ACL changes for one session.
type ACLChanges struct{ literal, prefixed *ConfigChanges }

// WatchACLChanges calls fn, from two goroutines of its own, with every resource whose ACLs changed. Notifications that exist already
// come first. It ends with the session, or by Close.
func WatchACLChanges(s Session, logger zerolog.Logger, fn func(ACLResource)) (*ACLChanges, error) {
	follow := func(container string, decode func([]byte) (ACLResource, error)) (*ConfigChanges, error) {
		return follow(s, logger, container, func(data []byte) error {
			r, err := decode(data)
			if err == nil {
				fn(r)
			}
			return err
		})
	}
	literal, err := follow(ACLChangesPath, decodeACLChange)
	if err != nil {
		return nil, err
	}
	prefixed, err := follow(ExtendedACLChangesPath, decodeExtendedACLChange)
	if err != nil {
		literal.Close()
		return nil, err
	}
	return &ACLChanges{literal, prefixed}, nil
}

// Close ends it, and waits for calls of fn that are under way.
func (c *ACLChanges) Close() {
	c.literal.Close()
	c.prefixed.Close()
}
