package acl

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

const (
	topic    = kmsg.ACLResourceTypeTopic
	group    = kmsg.ACLResourceTypeGroup
	literal  = kmsg.ACLResourcePatternTypeLiteral
	prefixed = kmsg.ACLResourcePatternTypePrefixed
	allow    = kmsg.ACLPermissionTypeAllow
	deny     = kmsg.ACLPermissionTypeDeny
	read     = kmsg.ACLOperationRead
	write    = kmsg.ACLOperationWrite
	describe = kmsg.ACLOperationDescribe
)

// world is a small one, so that things meet.
var (
	principals = []string{"User:alice", "User:bob", AllUsers}
	hosts      = []string{"10.0.0.1", "::1", Wildcard}
	names      = []string{"a", "ab", "abc", "b", Wildcard}
	types      = []Type{topic, group}
	operations = []Operation{kmsg.ACLOperationAll, read, write, describe, kmsg.ACLOperationDelete, kmsg.ACLOperationAlter,
		kmsg.ACLOperationAlterConfigs, kmsg.ACLOperationDescribeConfigs}
)

func drawBinding(t *rapid.T) Binding {
	pick := func(of []string, what string) string { return rapid.SampledFrom(of).Draw(t, what) }
	return Binding{
		Resource{rapid.SampledFrom(types).Draw(t, "type"), pick(names, "name"), rapid.SampledFrom([]Pattern{literal, prefixed}).Draw(t, "pattern")},
		Entry{pick(principals, "principal"), pick(hosts, "host"), rapid.SampledFrom(operations).Draw(t, "operation"), rapid.SampledFrom([]Permission{allow, deny}).Draw(t, "permission")},
	}
}

func drawQuestion(t *rapid.T) Question {
	return Question{
		Principal: rapid.SampledFrom([]string{"User:alice", "User:bob", "User:carol"}).Draw(t, "who"),
		Host:      rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "::1"}).Draw(t, "from"),
		Operation: rapid.SampledFrom(operations[1:]).Draw(t, "what"),
		Type:      rapid.SampledFrom(types).Draw(t, "on"),
		Name:      rapid.SampledFrom([]string{"a", "ab", "abc", "abcd", "b", "c"}).Draw(t, "named"),
	}
}

// naive is the text of KIP-11 and KIP-290, word by word, over a plain list.
func naive(list []Binding, q Question) Verdict {
	var matching []Binding
	for _, b := range list {
		sameName := b.Name == q.Name || b.Name == Wildcard
		if b.Pattern == prefixed {
			sameName = strings.HasPrefix(q.Name, b.Name)
		}
		if b.Type == q.Type && sameName {
			matching = append(matching, b)
		}
	}
	if len(matching) == 0 {
		return NoACL
	}
	exists := func(op Operation, permission Permission) bool {
		for _, b := range matching {
			if b.Permission == permission && (b.Operation == op || b.Operation == kmsg.ACLOperationAll) &&
				(b.Principal == q.Principal || b.Principal == AllUsers) && (b.Host == q.Host || b.Host == Wildcard) {
				return true
			}
		}
		return false
	}
	if exists(q.Operation, deny) {
		return Denied
	}
	enough := []Operation{q.Operation}
	switch q.Operation {
	case describe:
		enough = append(enough, read, write, kmsg.ACLOperationDelete, kmsg.ACLOperationAlter)
	case kmsg.ACLOperationDescribeConfigs:
		enough = append(enough, kmsg.ACLOperationAlterConfigs)
	}
	for _, op := range enough {
		if exists(op, allow) {
			return Allowed
		}
	}
	return Denied
}

func rulesOf(list []Binding) *Rules {
	of := map[Resource][]Entry{}
	for _, b := range list {
		of[b.Resource] = append(of[b.Resource], b.Entry)
	}
	return NewRules(of)
}

// TestDecisionsAreThoseOfAPlainList adds and removes ACLs and asks after each step (the class of CVE-2024-27309).
func TestDecisionsAreThoseOfAPlainList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []Binding
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) { list = append(list, drawBinding(t)) },
			"remove": func(t *rapid.T) {
				if len(list) == 0 {
					t.Skip("nothing there")
				}
				i := rapid.IntRange(0, len(list)-1).Draw(t, "which")
				list = append(list[:i:i], list[i+1:]...)
			},
			"": func(t *rapid.T) {
				q := drawQuestion(t)
				require.Equal(t, naive(list, q), rulesOf(list).Decide(q), "%+v asks %+v", list, q)
			},
		})
	})
}

// TestAnyIsTrueOnlyIfThereIsAName compares Any with trying names, new ones too.
func TestAnyIsTrueOnlyIfThereIsAName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.Custom(drawBinding), 0, 6).Draw(t, "list")
		q := drawQuestion(t)
		q.Operation = rapid.SampledFrom([]Operation{read, write}).Draw(t, "what")
		r := rulesOf(list)
		found := false
		for _, name := range []string{"a", "ab", "abc", "b", "a-new", "ab-new", "abc-new", "b-new", "new"} {
			q.Name = name
			found = found || r.Decide(q) == Allowed
		}
		got := r.Any(q.Principal, q.Host, q.Operation, q.Type, false)
		if found {
			require.True(t, got, "%+v asks %+v", list, q)
		}
		// The other way round Kafka is generous: an ALLOW of "*" counts although DENYs may cover every name there is.
		wild := false
		for _, b := range list {
			wild = wild || b.Name == Wildcard
		}
		if !wild {
			require.Equal(t, found, got, "%+v asks %+v", list, q)
		}
	})
}

func TestSettings(t *testing.T) {
	supers, err := ParseSuperUsers("User:root; User:CN=kafka-1,O=Acme ;;")
	require.NoError(t, err)
	s := Settings{SuperUsers: supers}
	r := rulesOf([]Binding{{Resource{topic, "a", literal}, Entry{AllUsers, Wildcard, kmsg.ACLOperationAll, deny}}})
	q := Question{"User:CN=kafka-1,O=Acme", "10.0.0.1", write, topic, "a"}
	require.True(t, s.May(r, q), "super users need no ACL and heed none")
	q.Principal = "User:alice"
	require.False(t, s.May(r, q))
	q.Name = "without"
	require.False(t, s.May(r, q), "default deny")
	s.Everyone = true
	require.True(t, s.May(r, q))
	q.Name = "a"
	require.False(t, s.May(r, q), "there is an ACL")
	for _, wrong := range []string{"root", "User:", ":root"} {
		_, err := ParseSuperUsers(wrong)
		require.Error(t, err, wrong)
	}
}

func TestAddressesAreComparedByValue(t *testing.T) {
	r := rulesOf([]Binding{{Resource{topic, "a", literal}, Entry{"User:alice", "0:0:0:0:0:0:0:1", read, allow}}})
	require.Equal(t, Allowed, r.Decide(Question{"User:alice", "::1", read, topic, "a"}))
	require.Equal(t, Denied, r.Decide(Question{"User:alice", "::2", read, topic, "a"}))
}

func TestFilters(t *testing.T) {
	text := func(s string) *string { return &s }
	list := map[string]Binding{
		"exact": {Resource{topic, "orders", literal}, Entry{"User:alice", "*", read, allow}},
		"star":  {Resource{topic, "*", literal}, Entry{"User:bob", "*", write, deny}},
		"ord":   {Resource{topic, "ord", prefixed}, Entry{"User:alice", "10.0.0.1", kmsg.ACLOperationAll, allow}},
		"pre":   {Resource{topic, "orders", prefixed}, Entry{"User:alice", "*", read, allow}},
		"group": {Resource{group, "orders", literal}, Entry{"User:alice", "*", read, allow}},
	}
	everything := Filter{Type: kmsg.ACLResourceTypeAny, Pattern: kmsg.ACLResourcePatternTypeAny, Operation: kmsg.ACLOperationAny, Permission: kmsg.ACLPermissionTypeAny}
	with := func(change func(*Filter)) Filter { f := everything; change(&f); return f }
	for _, row := range []struct {
		f    Filter
		want string
	}{
		{everything, "exact group ord pre star"},
		{with(func(f *Filter) { f.Type = topic }), "exact ord pre star"},
		{with(func(f *Filter) { f.Name = text("orders") }), "exact group pre"},
		{with(func(f *Filter) { f.Name, f.Pattern, f.Type = text("orders"), kmsg.ACLResourcePatternTypeMatch, topic }), "exact ord pre star"},
		{with(func(f *Filter) { f.Name, f.Pattern = text("orders"), prefixed }), "pre"},
		{with(func(f *Filter) { f.Name, f.Pattern = text("orders"), literal }), "exact group"},
		{with(func(f *Filter) { f.Pattern = prefixed }), "ord pre"},
		{with(func(f *Filter) { f.Principal = text("User:bob") }), "star"},
		{with(func(f *Filter) { f.Host = text("10.0.0.1") }), "ord"},
		{with(func(f *Filter) { f.Operation = read }), "exact group pre"},
		{with(func(f *Filter) { f.Permission = deny }), "star"},
	} {
		var got []string
		for _, name := range []string{"exact", "group", "ord", "pre", "star"} {
			if row.f.Matches(list[name]) {
				got = append(got, name)
			}
		}
		require.Equal(t, row.want, strings.Join(got, " "), "%+v", row.f)
		require.False(t, row.f.Unknown())
	}
	require.True(t, (&Filter{}).Unknown())
}

func TestACLsThatCannotBeStored(t *testing.T) {
	good := Binding{Resource{topic, "a", literal}, Entry{"User:alice", "*", read, allow}}
	require.NoError(t, good.Check())
	for _, change := range []func(*Binding){
		func(b *Binding) { b.Type = kmsg.ACLResourceTypeAny }, func(b *Binding) { b.Type = 42 }, func(b *Binding) { b.Name = "" }, func(b *Binding) { b.Name = "a/b" },
		func(b *Binding) { b.Pattern = kmsg.ACLResourcePatternTypeMatch }, func(b *Binding) { b.Operation = kmsg.ACLOperationAny }, func(b *Binding) { b.Operation = 99 },
		func(b *Binding) { b.Permission = kmsg.ACLPermissionTypeAny }, func(b *Binding) { b.Principal = "alice" }, func(b *Binding) { b.Host = "" },
		func(b *Binding) { b.Type, b.Name = kmsg.ACLResourceTypeCluster, "mine" },
	} {
		b := good
		change(&b)
		require.Error(t, b.Check(), "%+v", b)
	}
}

func TestDecisionsAllocateNothing(t *testing.T) {
	r := rulesOf([]Binding{
		{Resource{topic, "ord", prefixed}, Entry{"User:alice", "*", read, allow}}, {Resource{topic, "*", literal}, Entry{"User:bob", "*", read, deny}},
	})
	q := Question{"User:alice", "10.0.0.1", read, topic, "orders-of-the-day"}
	require.Zero(t, testing.AllocsPerRun(100, func() { r.Decide(q) }))
}

func BenchmarkDecide(b *testing.B) {
	r := rulesOf([]Binding{
		{Resource{topic, "orders-", prefixed}, Entry{"User:alice", "*", read, allow}}, {Resource{topic, "*", literal}, Entry{"User:bob", "*", read, deny}},
	})
	q := Question{"User:alice", "10.0.0.1", read, topic, "orders-of-the-day"}
	b.ReportAllocs()
	for b.Loop() {
		r.Decide(q)
	}
}
