package acl

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/zkcoord"
)

// Store keeps the ACLs of ZooKeeper at hand, and changes them. Decisions read a snapshot and never wait; reading and writing
// ZooKeeper take turns, so that an older state never replaces a newer one.
type Store struct {
	log      zerolog.Logger
	settings Settings

	rules atomic.Pointer[Rules] // immutable once stored
	turn  chan struct{}         // holds one token: who has it may use all
	all   map[Resource][]Entry
}

// NewStore makes an empty store: nobody but super users may do anything before Load.
func NewStore(settings Settings, log zerolog.Logger) *Store {
	s := &Store{log: log.With().Str("component", "authorizer").Logger(), settings: settings, turn: make(chan struct{}, 1), all: map[Resource][]Entry{}}
	s.turn <- struct{}{}
	s.rules.Store(NewRules(nil))
	return s
}

func (s *Store) takeTurn() (giveBack func()) {
	<-s.turn
	return func() { s.turn <- struct{}{} }
}

// May answers a question by what is known now.
func (s *Store) May(q Question) bool { return s.settings.May(s.rules.Load(), q) }

// MayAny answers whether there is any resource of a type on which the principal may do something.
func (s *Store) MayAny(principal, host string, op Operation, kind Type) bool {
	return s.settings.MayAny(s.rules.Load(), principal, host, op, kind)
}

// Load reads all ACLs. An ACL that is unreadable fails the load: to go on without it could let somebody in.
func (s *Store) Load(session zkcoord.Session) error {
	defer s.takeTurn()()
	if err := zkcoord.EnsureACLPaths(session); err != nil {
		return err
	}
	resources, err := zkcoord.ACLResources(session)
	if err != nil {
		return err
	}
	read, err := zkcoord.ReadACLs(session, resources)
	if err != nil {
		return err
	}
	all := map[Resource][]Entry{}
	for r, list := range read {
		resource, entries, err := decode(r, list)
		if err != nil {
			return err
		}
		all[resource] = entries
	}
	s.all = all
	s.rules.Store(NewRules(all))
	return nil
}

// Reload reads one resource's ACLs again, after a notification.
func (s *Store) Reload(session zkcoord.Session, r zkcoord.ACLResource) error {
	defer s.takeTurn()()
	read, err := zkcoord.ReadACLs(session, []zkcoord.ACLResource{r})
	if err != nil {
		return err
	}
	resource, entries, err := decode(r, read[r])
	if err != nil {
		return err
	}
	s.put(resource, entries)
	return nil
}

// put needs the turn.
func (s *Store) put(r Resource, entries []Entry) {
	delete(s.all, r)
	if len(entries) > 0 {
		s.all[r] = entries
	}
	s.rules.Store(NewRules(s.all))
}

// Find lists the ACLs that a filter chooses, by resource.
func (s *Store) Find(f Filter) map[Resource][]Entry {
	defer s.takeTurn()()
	return s.find(f)
}

func (s *Store) find(f Filter) map[Resource][]Entry {
	out := map[Resource][]Entry{}
	for r, entries := range s.all {
		for _, e := range entries {
			if f.Matches(Binding{r, e}) {
				out[r] = append(out[r], e)
			}
		}
	}
	return out
}

// Create adds ACLs; those that are there already stay as they are. The errors stand in the order of the bindings; all of one resource
// are written at once.
func (s *Store) Create(session zkcoord.Session, bindings []Binding) []error {
	defer s.takeTurn()()
	errs := make([]error, len(bindings))
	byResource := map[Resource][]int{}
	var order []Resource
	for i, b := range bindings {
		if errs[i] = b.Check(); errs[i] != nil {
			continue
		}
		if byResource[b.Resource] == nil {
			order = append(order, b.Resource)
		}
		byResource[b.Resource] = append(byResource[b.Resource], i)
	}
	for _, r := range order {
		err := s.update(session, r, func(have []Entry) []Entry {
			next := slices.Clone(have)
			for _, i := range byResource[r] {
				if !slices.Contains(next, bindings[i].Entry) {
					next = append(next, bindings[i].Entry)
				}
			}
			return next
		})
		for _, i := range byResource[r] {
			errs[i] = err
		}
	}
	return errs
}

// Deleted is an ACL that was chosen for deletion, and what came of it.
type Deleted struct {
	Binding
	Err error
}

// Delete removes the ACLs that each filter chooses.
func (s *Store) Delete(session zkcoord.Session, filters []Filter) [][]Deleted {
	defer s.takeTurn()()
	doomed := map[Resource][]Entry{}
	for _, f := range filters {
		for r, entries := range s.find(f) {
			for _, e := range entries {
				if !slices.Contains(doomed[r], e) {
					doomed[r] = append(doomed[r], e)
				}
			}
		}
	}
	chosen := make([][]Deleted, len(filters))
	for i, f := range filters {
		for r, entries := range s.find(f) {
			for _, e := range entries {
				chosen[i] = append(chosen[i], Deleted{Binding: Binding{r, e}})
			}
		}
	}
	failed := map[Resource]error{}
	for r, entries := range doomed {
		failed[r] = s.update(session, r, func(have []Entry) []Entry {
			return slices.DeleteFunc(slices.Clone(have), func(e Entry) bool { return slices.Contains(entries, e) })
		})
	}
	for i := range chosen {
		for j := range chosen[i] {
			chosen[i][j].Err = failed[chosen[i][j].Resource]
		}
	}
	return chosen
}

// update needs the turn. It starts from what ZooKeeper holds, not from what is known here.
func (s *Store) update(session zkcoord.Session, r Resource, change func([]Entry) []Entry) error {
	at := encodeResource(r)
	var unreadable error
	after, err := zkcoord.UpdateACLs(session, at, func(have []zkcoord.ACL) ([]zkcoord.ACL, bool) {
		_, entries, err := decode(at, have)
		if unreadable = err; err != nil {
			return have, true
		}
		next := change(entries)
		return encodeEntries(next), slices.Equal(next, entries)
	})
	if err := errors.Join(err, unreadable); err != nil {
		return err
	}
	_, entries, err := decode(at, after)
	if err != nil {
		return err
	}
	s.put(r, entries)
	return nil
}

// The words of the znodes, by the numbers of the wire.
var (
	typeWords = map[Type]string{
		kmsg.ACLResourceTypeTopic: "Topic", kmsg.ACLResourceTypeGroup: "Group", kmsg.ACLResourceTypeCluster: "Cluster",
		kmsg.ACLResourceTypeTransactionalId: "TransactionalId", kmsg.ACLResourceTypeDelegationToken: "DelegationToken", kmsg.ACLResourceTypeUser: "User",
	}
	operationWords = map[Operation]string{
		kmsg.ACLOperationAll: "All", kmsg.ACLOperationRead: "Read", kmsg.ACLOperationWrite: "Write", kmsg.ACLOperationCreate: "Create",
		kmsg.ACLOperationDelete: "Delete", kmsg.ACLOperationAlter: "Alter", kmsg.ACLOperationDescribe: "Describe",
		kmsg.ACLOperationClusterAction: "ClusterAction", kmsg.ACLOperationDescribeConfigs: "DescribeConfigs",
		kmsg.ACLOperationAlterConfigs: "AlterConfigs", kmsg.ACLOperationIdempotentWrite: "IdempotentWrite",
		kmsg.ACLOperationCreateTokens: "CreateTokens", kmsg.ACLOperationDescribeTokens: "DescribeTokens",
	}
	permissionWords = map[Permission]string{kmsg.ACLPermissionTypeAllow: "Allow", kmsg.ACLPermissionTypeDeny: "Deny"}
)

func wordOf[K comparable](words map[K]string, word string) (K, error) {
	for k, w := range words {
		if w == word {
			return k, nil
		}
	}
	var none K
	return none, fmt.Errorf("%w: unknown word %q in an ACL", zkcoord.ErrInvalid, word)
}

func encodeResource(r Resource) zkcoord.ACLResource {
	return zkcoord.ACLResource{Type: typeWords[r.Type], Name: r.Name, Prefixed: r.Pattern == kmsg.ACLResourcePatternTypePrefixed}
}

func encodeEntries(entries []Entry) []zkcoord.ACL {
	out := make([]zkcoord.ACL, len(entries))
	for i, e := range entries {
		out[i] = zkcoord.ACL{Principal: e.Principal, Host: e.Host, Operation: operationWords[e.Operation], Permission: permissionWords[e.Permission]}
	}
	return out
}

func decode(at zkcoord.ACLResource, list []zkcoord.ACL) (r Resource, entries []Entry, err error) {
	r.Name, r.Pattern = at.Name, kmsg.ACLResourcePatternTypeLiteral
	if at.Prefixed {
		r.Pattern = kmsg.ACLResourcePatternTypePrefixed
	}
	if r.Type, err = wordOf(typeWords, at.Type); err != nil {
		return r, nil, err
	}
	for _, a := range list {
		e := Entry{Principal: a.Principal, Host: a.Host}
		if e.Operation, err = wordOf(operationWords, a.Operation); err != nil {
			return r, nil, err
		}
		if e.Permission, err = wordOf(permissionWords, a.Permission); err != nil {
			return r, nil, err
		}
		entries = append(entries, e)
	}
	return r, entries, nil
}
