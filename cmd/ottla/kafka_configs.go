package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/config"
	"ottla/security"
	"ottla/zkcoord"
)

var kafkaConfigs = kafkaScript{
	about: "describe and change settings of topics, brokers, users, clients and addresses",
	values: "bootstrap-server bootstrap-controller command-config zookeeper zk-tls-config-file entity-type entity-name add-config add-config-file delete-config " +
		"topic broker user client ip",
	flags: "describe alter all force entity-default broker-defaults user-defaults client-defaults ip-defaults",
	run:   runKafkaConfigs,
}

// entity is whose settings are meant. An empty name is the default of its type.
type entity struct{ kind, name string }

var entityKinds = map[string]string{"topic": "topics", "broker": "brokers", "user": "users", "client": "clients", "ip": "ips"}

// kafkaDefault is how the default of a type is written.
const kafkaDefault = "<default>"

// entities reads them off --entity-type and --entity-name, or off the short options.
func (c *kafkaCall) entities() ([]entity, error) {
	var out []entity
	for short, kind := range entityKinds {
		if c.has(short) {
			out = append(out, entity{kind, c.value(short)})
		}
		if c.flags[short+"-defaults"] {
			out = append(out, entity{kind, kafkaDefault})
		}
	}
	// Names and defaults belong to the types in the order in which they stand.
	var names []string
	for i, arg := range c.args {
		switch name, value, given := strings.Cut(arg, "="); {
		case name == "--entity-default":
			names = append(names, kafkaDefault)
		case name == "--entity-name" && given:
			names = append(names, value)
		case name == "--entity-name" && i+1 < len(c.args):
			names = append(names, c.args[i+1])
		}
	}
	kinds := c.values["entity-type"]
	for i, kind := range kinds {
		if !slices.Contains(slices.Collect(maps.Values(entityKinds)), kind) {
			return nil, fmt.Errorf("Invalid entity type %s, the entity type must be one of topics, clients, users, brokers, ips", kind)
		}
		e := entity{kind: kind}
		if i < len(names) {
			e.name = names[i]
		}
		out = append(out, e)
	}
	if len(out) == 0 {
		return nil, errors.New("at least one entity type must be specified: --entity-type")
	}
	slices.SortFunc(out, func(a, b entity) int { return strings.Compare(b.kind, a.kind) }) // users before clients
	if len(out) > 2 || len(out) == 2 && !(out[0].kind == "users" && out[1].kind == "clients") {
		return nil, errors.New("only users and clients may be named together")
	}
	return out, nil
}

// additions reads --add-config and --add-config-file.
func (c *kafkaCall) additions() (map[string]string, error) {
	add := map[string]string{}
	if file := c.value("add-config-file"); file != "" {
		read, err := config.ReadFile(file)
		if err != nil {
			return nil, err
		}
		maps.Copy(add, read)
	}
	for _, text := range c.values["add-config"] {
		list, err := pairs(splitConfigs(text))
		if err != nil {
			return nil, fmt.Errorf("--add-config: %w", err)
		}
		for k, v := range list {
			add[k] = strings.TrimSuffix(strings.TrimPrefix(v, "["), "]")
		}
	}
	return add, nil
}

// splitConfigs splits at commas that stand outside of square brackets.
func splitConfigs(text string) []string {
	depth := 0
	return strings.FieldsFunc(text, func(r rune) bool {
		switch r {
		case '[':
			depth++
		case ']':
			depth--
		}
		return r == ',' && depth == 0
	})
}

func (c *kafkaCall) deletions() []string {
	var out []string
	for _, text := range c.values["delete-config"] {
		out = append(out, strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })...)
	}
	return out
}

func runKafkaConfigs(c *kafkaCall) error {
	action, err := c.action("describe", "alter")
	if err != nil {
		return err
	}
	entities, err := c.entities()
	if err != nil {
		return err
	}
	add, err := c.additions()
	if err != nil {
		return err
	}
	remove := c.deletions()
	if action == "alter" {
		switch {
		case len(add)+len(remove) == 0:
			return errors.New("at least one of --add-config, --add-config-file, or --delete-config must be specified with --alter")
		case slices.ContainsFunc(entities, func(e entity) bool { return e.name == "" }):
			return errors.New("an entity name must be specified with --alter: --entity-name, or --entity-default")
		}
	}
	if c.has("zookeeper") {
		return c.configsInZooKeeper(action, entities, add, remove)
	}
	adm, err := c.admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	switch kind := entities[0].kind; {
	case action == "describe" && (kind == "topics" || kind == "brokers"):
		return c.describeConfigs(adm, entities[0])
	case action == "describe":
		return c.describeQuotas(adm, entities)
	case kind == "topics" || kind == "brokers":
		err = c.alterConfigs(adm, entities[0], add, remove)
	default:
		err = c.alterQuotas(adm, entities, add, remove)
	}
	if err != nil {
		return err
	}
	c.completed(entities)
	return nil
}

func (c *kafkaCall) completed(entities []entity) {
	for _, e := range entities {
		kind := strings.TrimSuffix(e.kind, "s")
		if e.name == kafkaDefault {
			fmt.Fprintf(c.out, "Completed updating default config for %s in the cluster.\n", e.kind)
			continue
		}
		fmt.Fprintf(c.out, "Completed updating config for %s %s.\n", kind, e.name)
	}
}

// broker is the number that a broker's entity names; none for the cluster's default.
func (e entity) broker() ([]int32, error) {
	if e.name == kafkaDefault || e.name == "" {
		return nil, nil
	}
	id, err := strconv.ParseInt(e.name, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("The entity name for brokers must be a valid integer broker id, found: %s", e.name)
	}
	return []int32{int32(id)}, nil
}

func (c *kafkaCall) alterConfigs(adm *kadm.Client, e entity, add map[string]string, remove []string) error {
	var changes []kadm.AlterConfig
	for _, k := range sortedKeys(add) {
		v := add[k]
		changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: &v})
	}
	for _, k := range remove {
		changes = append(changes, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: k})
	}
	var done kadm.AlterConfigsResponses
	var err error
	if e.kind == "topics" {
		done, err = adm.AlterTopicConfigs(c.ctx, changes, e.name)
	} else {
		var brokers []int32
		if brokers, err = e.broker(); err != nil {
			return err
		}
		done, err = adm.AlterBrokerConfigs(c.ctx, changes, brokers...)
	}
	if err != nil {
		return errors.New(cause(err))
	}
	for _, r := range done {
		if r.Err != nil {
			return errors.New(cmp.Or(r.ErrMessage, cause(r.Err)))
		}
	}
	return nil
}

func (c *kafkaCall) describeConfigs(adm *kadm.Client, e entity) error {
	var found kadm.ResourceConfigs
	var err error
	heading := "Dynamic configs for %s %s are:\n"
	if c.flags["all"] {
		heading = "All configs for %s %s are:\n"
	}
	if e.kind == "topics" {
		names := []string{e.name}
		if e.name == "" {
			topics, err := adm.ListTopicsWithInternal(c.ctx)
			if err != nil {
				return errors.New(cause(err))
			}
			names = topics.Names()
		}
		if len(names) == 0 {
			return nil
		}
		found, err = adm.DescribeTopicConfigs(c.ctx, names...)
	} else {
		var brokers []int32
		if brokers, err = e.broker(); err != nil {
			return err
		}
		found, err = adm.DescribeBrokerConfigs(c.ctx, brokers...)
	}
	if err != nil {
		return errors.New(cause(err))
	}
	for _, r := range found {
		if r.Err != nil {
			return errors.New(cmp.Or(r.ErrMessage, cause(r.Err)))
		}
		if e.name == kafkaDefault || r.Name == "" {
			fmt.Fprintf(c.out, "Default configs for %s in the cluster are:\n", e.kind)
		} else {
			fmt.Fprintf(c.out, heading, strings.TrimSuffix(e.kind, "s"), r.Name)
		}
		for _, s := range r.Configs {
			dynamic := s.Source == kmsg.ConfigSourceDynamicTopicConfig || s.Source == kmsg.ConfigSourceDynamicBrokerConfig || s.Source == kmsg.ConfigSourceDynamicDefaultBrokerConfig
			if !dynamic && !c.flags["all"] {
				continue
			}
			fmt.Fprintf(c.out, "  %s=%s sensitive=%v synonyms={%s}\n", s.Key, textOr(s.Value, "null"), s.Sensitive, synonymsOf(s))
		}
	}
	return nil
}

func synonymsOf(s kadm.Config) string {
	var out []string
	for _, syn := range s.Synonyms {
		out = append(out, fmt.Sprintf("%s:%s=%s", syn.Source, syn.Key, textOr(syn.Value, "null")))
	}
	return strings.Join(out, ", ")
}

func textOr(s *string, otherwise string) string {
	if s == nil {
		return otherwise
	}
	return *s
}

// quotaKinds are the types of entities as quotas call them.
var quotaKinds = map[string]string{"users": "user", "clients": "client-id", "ips": "ip"}

// scramOf reads what is asked for a SCRAM credential: password=…,iterations=….
func scramOf(text string) (password string, iterations int, err error) {
	settings, err := pairs(splitConfigs(text))
	if err != nil {
		return "", 0, errors.New("a SCRAM credential is written as [iterations=8192,password=…]")
	}
	iterations = security.ScramIterationsMin
	if n, ok := settings["iterations"]; ok {
		if iterations, err = strconv.Atoi(n); err != nil || iterations < security.ScramIterationsMin || iterations > security.ScramIterationsMax {
			return "", 0, fmt.Errorf("iterations=%s: want %d to %d", n, security.ScramIterationsMin, security.ScramIterationsMax)
		}
	}
	if settings["password"] == "" {
		return "", 0, errors.New("a SCRAM credential needs a password: [iterations=8192,password=…]")
	}
	return settings["password"], iterations, nil
}

var scramMechanisms = map[string]kadm.ScramMechanism{security.ScramSHA256: kadm.ScramSha256, security.ScramSHA512: kadm.ScramSha512}

func (c *kafkaCall) alterQuotas(adm *kadm.Client, entities []entity, add map[string]string, remove []string) error {
	var upsert []kadm.UpsertSCRAM
	var drop []kadm.DeleteSCRAM
	change := kadm.AlterClientQuotaEntry{Entity: quotaEntity(entities)}
	for _, k := range sortedKeys(add) {
		if m, scram := scramMechanisms[k]; scram {
			password, iterations, err := scramOf(add[k])
			if err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
			upsert = append(upsert, kadm.UpsertSCRAM{User: entities[0].name, Mechanism: m, Iterations: int32(iterations), Password: password})
			continue
		}
		v, err := strconv.ParseFloat(add[k], 64)
		if err != nil {
			return fmt.Errorf("Cannot parse quota configuration value for %s: %s", k, add[k])
		}
		change.Ops = append(change.Ops, kadm.AlterClientQuotaOp{Key: k, Value: v})
	}
	for _, k := range remove {
		if m, scram := scramMechanisms[k]; scram {
			drop = append(drop, kadm.DeleteSCRAM{User: entities[0].name, Mechanism: m})
			continue
		}
		change.Ops = append(change.Ops, kadm.AlterClientQuotaOp{Key: k, Remove: true})
	}
	if len(upsert)+len(drop) > 0 {
		if len(entities) != 1 || entities[0].kind != "users" || entities[0].name == kafkaDefault {
			return errors.New("only single users have SCRAM credentials")
		}
		done, err := adm.AlterUserSCRAMs(c.ctx, drop, upsert)
		if err != nil {
			return errors.New(cause(err))
		}
		for _, r := range done {
			if r.Err != nil {
				return errors.New(cmp.Or(r.ErrMessage, cause(r.Err)))
			}
		}
	}
	if len(change.Ops) == 0 {
		return nil
	}
	done, err := adm.AlterClientQuotas(c.ctx, []kadm.AlterClientQuotaEntry{change})
	if err != nil {
		return errors.New(cause(err))
	}
	for _, r := range done {
		if r.Err != nil {
			return errors.New(cmp.Or(r.ErrMessage, cause(r.Err)))
		}
	}
	return nil
}

func quotaEntity(entities []entity) kadm.ClientQuotaEntity {
	var out kadm.ClientQuotaEntity
	for _, e := range entities {
		part := kadm.ClientQuotaEntityComponent{Type: quotaKinds[e.kind]}
		if e.name != kafkaDefault {
			part.Name = &e.name
		}
		out = append(out, part)
	}
	return out
}

func (c *kafkaCall) describeQuotas(adm *kadm.Client, entities []entity) error {
	var filter []kadm.DescribeClientQuotaComponent
	for _, e := range entities {
		part := kadm.DescribeClientQuotaComponent{Type: quotaKinds[e.kind], MatchType: kmsg.QuotasMatchTypeExact, MatchName: &e.name}
		switch e.name {
		case "":
			part.MatchType, part.MatchName = kmsg.QuotasMatchTypeAny, nil
		case kafkaDefault:
			part.MatchType, part.MatchName = kmsg.QuotasMatchTypeDefault, nil
		}
		filter = append(filter, part)
	}
	found, err := adm.DescribeClientQuotas(c.ctx, true, filter)
	if err != nil {
		return errors.New(cause(err))
	}
	for _, q := range found {
		var values []string
		for _, v := range q.Values {
			values = append(values, v.Key+"="+strconv.FormatFloat(v.Value, 'f', -1, 64))
		}
		fmt.Fprintf(c.out, "Quota configs for %s are %s\n", entityText(q.Entity), strings.Join(values, ", "))
	}
	if len(entities) > 1 || entities[0].kind != "users" || entities[0].name == kafkaDefault {
		return nil
	}
	var users []string
	if entities[0].name != "" {
		users = append(users, entities[0].name)
	}
	credentials, err := adm.DescribeUserSCRAMs(c.ctx, users...)
	if err != nil {
		return errors.New(cause(err))
	}
	for _, u := range credentials.Sorted() {
		var values []string
		for _, i := range u.CredInfos {
			values = append(values, fmt.Sprintf("%s=iterations=%d", i.Mechanism, i.Iterations))
		}
		if len(values) > 0 {
			fmt.Fprintf(c.out, "SCRAM credential configs for user-principal '%s' are %s\n", u.User, strings.Join(values, ", "))
		}
	}
	return nil
}

func entityText(e kadm.ClientQuotaEntity) string {
	said := map[string]string{"user": "user-principal", "client-id": "client-id", "ip": "ip"}
	var out []string
	for _, part := range e {
		if part.Name == nil {
			out = append(out, "the default "+said[part.Type])
			continue
		}
		out = append(out, said[part.Type]+" '"+*part.Name+"'")
	}
	return strings.Join(out, ", ")
}

// configsInZooKeeper works on the znodes themselves: for users that must exist before the first broker starts.
func (c *kafkaCall) configsInZooKeeper(action string, entities []entity, add map[string]string, remove []string) error {
	kind, name := entities[0].kind, entities[0].name
	sanitized := name
	if kind != "topics" && kind != "brokers" {
		sanitized = zkcoord.SanitizeEntity(name)
	}
	if len(entities) == 2 {
		sanitized += "/clients/" + zkcoord.SanitizeEntity(entities[1].name)
	}
	ctx, cancel := context.WithTimeout(c.ctx, scriptTimeout)
	defer cancel()
	zk, err := zkcoord.Connect(ctx, zkcoord.Options{
		Connect: c.value("zookeeper"), SessionTimeout: scriptTimeout, ConnectionTimeout: scriptTimeout, Logger: zerolog.Nop(),
	})
	if err != nil {
		return fmt.Errorf("no ZooKeeper server answers at %s: %w", c.value("zookeeper"), err)
	}
	defer zk.Close()
	s := zk.Session()
	if action == "describe" {
		return c.describeInZooKeeper(s, kind, name, sanitized)
	}
	settings, err := zkcoord.ReadConfig(s, kind, sanitized)
	if err != nil {
		return err
	}
	for k, v := range add {
		if _, scram := scramMechanisms[k]; scram {
			password, iterations, err := scramOf(v)
			if err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
			credential, err := security.NewScramCredential(k, password, iterations)
			if err != nil {
				return err
			}
			v = credential.Format()
		} else if config.IsSensitive(k) {
			return fmt.Errorf("%s: a password is not written to ZooKeeper in the clear; use --bootstrap-server", k)
		}
		settings[k] = v
	}
	for _, k := range remove {
		if _, there := settings[k]; !there {
			return fmt.Errorf("Invalid config(s): %s", k)
		}
		delete(settings, k)
	}
	if err := zkcoord.SeedConfig(s, kind, sanitized, settings); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "Completed updating config for entity: %s '%s'.\n", map[string]string{
		"topics": "topic", "brokers": "brokers", "users": "user-principal", "clients": "client-id", "ips": "ip"}[kind], name)
	return nil
}

func (c *kafkaCall) describeInZooKeeper(s zkcoord.Session, kind, name, sanitized string) error {
	names := []string{sanitized}
	if name == "" {
		var err error
		if names, err = zkcoord.EntityNames(s, kind); err != nil {
			return err
		}
	}
	for _, n := range names {
		settings, err := zkcoord.ReadConfig(s, kind, n)
		if err != nil {
			return err
		}
		var values []string
		for _, k := range sortedKeys(settings) {
			values = append(values, k+"="+settings[k])
		}
		fmt.Fprintf(c.out, "Configs for %s '%s' are %s\n", strings.TrimSuffix(kind, "s"), n, strings.Join(values, ","))
	}
	return nil
}
