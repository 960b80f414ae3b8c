// Package acl decides what a principal may do: ACLs as Kafka has them, and a matcher without state. What is stored where is the
// business of Store.
//
// The rules (KIP-11, KIP-290):
//   - A super user may do everything.
//   - ACLs of a resource are those of its name, of the name "*", and of every prefix of its name. Without any of them
//     allow.everyone.if.no.acl.found decides.
//   - A DENY that fits wins over every ALLOW. Without an ALLOW that fits the answer is no.
//   - Principal "User:*" and host "*" stand for all, operation ALL for every operation. An ALLOW of READ, WRITE, DELETE or ALTER implies
//     DESCRIBE, one of ALTER_CONFIGS implies DESCRIBE_CONFIGS; a DENY implies nothing.
package acl

import (
	"net"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The types of a resource, its pattern, an operation and a permission are kmsg's, with the numbers of the wire.
type (
	// Type is a resource type.
	Type = kmsg.ACLResourceType
	// Pattern says how a resource's name is meant.
	Pattern = kmsg.ACLResourcePatternType
	// Operation is what somebody wants to do.
	Operation = kmsg.ACLOperation
	// Permission is allow or deny.
	Permission = kmsg.ACLPermissionType
)

// Wildcard stands for all names, and for all hosts. AllUsers stands for all principals.
const (
	Wildcard = "*"
	AllUsers = "User:*"
)

// ClusterName is the name of the one cluster resource.
const ClusterName = "kafka-cluster"

// Resource is what ACLs are attached to.
type Resource struct {
	Type    Type
	Name    string
	Pattern Pattern // Literal or Prefixed
}

// Entry is one ACL of a resource.
type Entry struct {
	Principal  string // like User:alice
	Host       string // address, or *
	Operation  Operation
	Permission Permission
}

// Binding is an ACL with its resource.
type Binding struct {
	Resource
	Entry
}

// Question is what is asked: may this principal, from this host, do this on the resource of this name?
type Question struct {
	Principal string
	Host      string // address, as net.IP prints it
	Operation Operation
	Type      Type
	Name      string
}

// named is a resource without its pattern.
type named struct {
	kind Type
	name string
}

// Rules are all ACLs at one moment; immutable.
type Rules struct {
	literal  map[named][]Entry
	prefixed map[named][]Entry
	longest  map[Type]int // length of the longest prefix
}

// NewRules makes rules of resources with their ACLs. Resources without any are left out.
func NewRules(of map[Resource][]Entry) *Rules {
	r := &Rules{literal: map[named][]Entry{}, prefixed: map[named][]Entry{}, longest: map[Type]int{}}
	for resource, entries := range of {
		if len(entries) == 0 {
			continue
		}
		at := named{resource.Type, resource.Name}
		entries = canonical(entries)
		if resource.Pattern == kmsg.ACLResourcePatternTypePrefixed {
			r.prefixed[at] = entries
			r.longest[at.kind] = max(r.longest[at.kind], len(at.name))
		} else {
			r.literal[at] = entries
		}
	}
	return r
}

// canonical writes addresses as net.IP does: Java prints those of IPv6 at full length.
func canonical(entries []Entry) []Entry {
	out := slices.Clone(entries)
	for i := range out {
		out[i].Host = canonicalHost(out[i].Host)
	}
	return out
}

func canonicalHost(host string) string {
	if ip := net.ParseIP(host); ip != nil {
		return ip.String()
	}
	return host
}

// Verdict is the answer to a Question.
type Verdict int

// The verdicts.
const (
	NoACL   Verdict = iota // the resource has no ACL at all
	Denied                 // a DENY fits, or no ALLOW does
	Allowed                // an ALLOW fits, and no DENY
)

// Decide answers a question. It allocates nothing.
func (r *Rules) Decide(q Question) Verdict {
	d := decision{q: q}
	d.look(r.literal[named{q.Type, q.Name}])
	if q.Name != Wildcard {
		d.look(r.literal[named{q.Type, Wildcard}])
	}
	for n := min(len(q.Name), r.longest[q.Type]); n > 0 && !d.denied; n-- {
		d.look(r.prefixed[named{q.Type, q.Name[:n]}])
	}
	switch {
	case !d.found:
		return NoACL
	case d.denied || !d.allowed:
		return Denied
	}
	return Allowed
}

type decision struct {
	q                      Question
	found, denied, allowed bool
}

func (d *decision) look(entries []Entry) {
	for i := range entries {
		e := &entries[i]
		d.found = true
		if !e.concerns(d.q.Principal, d.q.Host) {
			continue
		}
		switch e.Permission {
		case kmsg.ACLPermissionTypeDeny:
			d.denied = d.denied || e.Operation == d.q.Operation || e.Operation == kmsg.ACLOperationAll
		case kmsg.ACLPermissionTypeAllow:
			d.allowed = d.allowed || allows(e.Operation, d.q.Operation)
		}
	}
}

func (e *Entry) concerns(principal, host string) bool {
	return (e.Principal == principal || e.Principal == AllUsers) && (e.Host == host || e.Host == Wildcard)
}

// allows reports whether an ALLOW of one operation allows another.
func allows(given, asked Operation) bool {
	if given == asked || given == kmsg.ACLOperationAll {
		return true
	}
	switch asked {
	case kmsg.ACLOperationDescribe:
		return given == kmsg.ACLOperationRead || given == kmsg.ACLOperationWrite || given == kmsg.ACLOperationDelete || given == kmsg.ACLOperationAlter
	case kmsg.ACLOperationDescribeConfigs:
		return given == kmsg.ACLOperationAlterConfigs
	}
	return false
}

// Any reports whether there is any resource of a type, named or not yet, on which the principal may do something: an ALLOW that no
// DENY covers. everyone is allow.everyone.if.no.acl.found. Source: KIP-679.
func (r *Rules) Any(principal, host string, op Operation, kind Type, everyone bool) bool {
	fits := func(entries []Entry, permission Permission) bool {
		return slices.ContainsFunc(entries, func(e Entry) bool {
			return e.Permission == permission && e.concerns(principal, host) && (e.Operation == op || e.Operation == kmsg.ACLOperationAll)
		})
	}
	const deny, allow = kmsg.ACLPermissionTypeDeny, kmsg.ACLPermissionTypeAllow
	if fits(r.literal[named{kind, Wildcard}], deny) {
		return false
	}
	if everyone {
		return true
	}
	covered := func(name string) bool { // by the DENY of a prefix
		for n := range len(name) {
			if fits(r.prefixed[named{kind, name[:n+1]}], deny) {
				return true
			}
		}
		return false
	}
	for at, entries := range r.literal {
		if at.kind == kind && fits(entries, allow) && (at.name == Wildcard || !fits(entries, deny) && !covered(at.name)) {
			return true
		}
	}
	for at, entries := range r.prefixed {
		if at.kind == kind && fits(entries, allow) && !covered(at.name) {
			return true
		}
	}
	return false
}

// Settings are the authorizer's own.
type Settings struct {
	SuperUsers []string // principals
	Everyone   bool     // allow.everyone.if.no.acl.found
}

// ParseSuperUsers reads super.users: principals with semicolons between, since names of certificates have commas.
func ParseSuperUsers(text string) ([]string, error) {
	var out []string
	for p := range strings.SplitSeq(text, ";") {
		if p = strings.TrimSpace(p); p == "" {
			continue
		}
		if !ValidPrincipal(p) {
			return nil, &PrincipalError{p}
		}
		out = append(out, p)
	}
	return out, nil
}

// PrincipalError is a principal that is none.
type PrincipalError struct{ Text string }

func (e *PrincipalError) Error() string {
	return "expected a string in format principalType:principalName but got " + e.Text
}

// ValidPrincipal reports whether a text is like User:alice.
func ValidPrincipal(text string) bool {
	kind, name, ok := strings.Cut(text, ":")
	return ok && kind != "" && name != ""
}

// May applies settings and rules.
func (s *Settings) May(r *Rules, q Question) bool {
	if slices.Contains(s.SuperUsers, q.Principal) {
		return true
	}
	switch r.Decide(q) {
	case Allowed:
		return true
	case NoACL:
		return s.Everyone
	}
	return false
}

// MayAny applies settings and rules to Any.
func (s *Settings) MayAny(r *Rules, principal, host string, op Operation, kind Type) bool {
	return slices.Contains(s.SuperUsers, principal) || r.Any(principal, host, op, kind, s.Everyone)
}

// Filter chooses ACLs, as DescribeAcls and DeleteAcls do. Nil means anything.
type Filter struct {
	Type       Type    // may be ANY
	Pattern    Pattern // may be ANY, or MATCH: all that concerns the resource of this name
	Name       *string
	Principal  *string
	Host       *string
	Operation  Operation  // may be ANY
	Permission Permission // may be ANY
}

// Unknown reports whether something in it has no meaning.
func (f *Filter) Unknown() bool {
	return f.Type < kmsg.ACLResourceTypeAny || f.Type > kmsg.ACLResourceTypeUser || f.Pattern < kmsg.ACLResourcePatternTypeAny || f.Pattern > kmsg.ACLResourcePatternTypePrefixed ||
		f.Operation < kmsg.ACLOperationAny || f.Operation > kmsg.ACLOperationDescribeTokens || f.Permission < kmsg.ACLPermissionTypeAny || f.Permission > kmsg.ACLPermissionTypeAllow
}

// Matches reports whether it chooses an ACL.
func (f *Filter) Matches(b Binding) bool { return f.resource(b.Resource) && f.entry(b.Entry) }

func (f *Filter) resource(r Resource) bool {
	switch {
	case f.Type != kmsg.ACLResourceTypeAny && f.Type != r.Type:
		return false
	case f.Pattern != kmsg.ACLResourcePatternTypeAny && f.Pattern != kmsg.ACLResourcePatternTypeMatch && f.Pattern != r.Pattern:
		return false
	case f.Name == nil:
		return true
	case f.Pattern == kmsg.ACLResourcePatternTypeAny || f.Pattern == r.Pattern:
		return *f.Name == r.Name
	case r.Pattern == kmsg.ACLResourcePatternTypePrefixed:
		return strings.HasPrefix(*f.Name, r.Name)
	}
	return *f.Name == r.Name || r.Name == Wildcard
}

func (f *Filter) entry(e Entry) bool {
	return (f.Principal == nil || *f.Principal == e.Principal) && (f.Host == nil || *f.Host == e.Host) &&
		(f.Operation == kmsg.ACLOperationAny || f.Operation == e.Operation) && (f.Permission == kmsg.ACLPermissionTypeAny || f.Permission == e.Permission)
}

// Check says why an ACL cannot be stored; the text is for the client.
func (b *Binding) Check() error {
	problem := func(text string) error { return &InvalidError{text} }
	switch {
	case b.Type < kmsg.ACLResourceTypeTopic || b.Type > kmsg.ACLResourceTypeUser:
		return problem("Invalid resource type")
	case b.Pattern != kmsg.ACLResourcePatternTypeLiteral && b.Pattern != kmsg.ACLResourcePatternTypePrefixed:
		return problem("Invalid pattern type: it must be literal or prefixed")
	case b.Operation < kmsg.ACLOperationAll || b.Operation > kmsg.ACLOperationDescribeTokens:
		return problem("Invalid operation")
	case b.Permission != kmsg.ACLPermissionTypeAllow && b.Permission != kmsg.ACLPermissionTypeDeny:
		return problem("Invalid permission type")
	case b.Name == "":
		return problem("Invalid empty resource name")
	case b.Type == kmsg.ACLResourceTypeCluster && b.Name != ClusterName:
		return problem("The only valid name for the CLUSTER resource is " + ClusterName)
	case strings.Contains(b.Name, "/"):
		return problem("ACL binding contains invalid resource name: " + b.Name)
	case !ValidPrincipal(b.Principal):
		return problem((&PrincipalError{b.Principal}).Error())
	case b.Host == "":
		return problem("Invalid empty host")
	}
	return nil
}

// InvalidError is an ACL that cannot be stored.
type InvalidError struct{ Text string }

func (e *InvalidError) Error() string { return e.Text }
