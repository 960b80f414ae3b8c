package broker

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/config"
	"ottla/security"
	"ottla/zkcoord"
)

// AlterConfigs v0–2 replaces a resource's whole set of settings, IncrementalAlterConfigs v0–1 changes single ones (KIP-339).
//   - Topics and the cluster's default from any broker; a broker's own only on that broker.
//   - The settings are written to /config, then a notification tells all brokers to read them again; this one hears of it the
//     same way.
//   - A resource or a key named twice: INVALID_REQUEST. An unknown key or a value that is not allowed: INVALID_CONFIG.

// change is one setting in a request.
type change struct {
	name  string
	op    kmsg.IncrementalAlterConfigOp
	value *string
}

// alteration is what a request wants of one resource. With replace, what is not named goes back to its default.
type alteration struct {
	resource resourceName
	changes  []change
	replace  bool
}

func (b *Broker) handleAlterConfigs(r *wire.Request, req *kmsg.AlterConfigsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.AlterConfigsResponse)
	wishes := make([]alteration, len(req.Resources))
	for i, res := range req.Resources {
		wishes[i] = alteration{resource: resourceName{res.ResourceType, res.ResourceName}, replace: true}
		for _, c := range res.Configs {
			wishes[i].changes = append(wishes[i].changes, change{c.Name, kmsg.IncrementalAlterConfigOpSet, c.Value})
		}
	}
	b.alterResources(r, wishes, req.ValidateOnly, resp, func(res resourceName, code int16, message *string) {
		out := kmsg.NewAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName, out.ErrorCode, out.ErrorMessage = res.kind, res.name, code, message
		resp.Resources = append(resp.Resources, out)
	})
	return nil
}

func (b *Broker) handleIncrementalAlterConfigs(r *wire.Request, req *kmsg.IncrementalAlterConfigsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
	wishes := make([]alteration, len(req.Resources))
	for i, res := range req.Resources {
		wishes[i] = alteration{resource: resourceName{res.ResourceType, res.ResourceName}}
		for _, c := range res.Configs {
			wishes[i].changes = append(wishes[i].changes, change{c.Name, c.Op, c.Value})
		}
	}
	b.alterResources(r, wishes, req.ValidateOnly, resp, func(res resourceName, code int16, message *string) {
		out := kmsg.NewIncrementalAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName, out.ErrorCode, out.ErrorMessage = res.kind, res.name, code, message
		resp.Resources = append(resp.Resources, out)
	})
	return nil
}

// alterResources fulfils the wishes one after the other in a task, tells done of each, and sends the answer.
func (b *Broker) alterResources(r *wire.Request, wishes []alteration, validateOnly bool, resp kmsg.Response,
	done func(res resourceName, code int16, message *string)) {
	b.tasks.run(func() {
		seen := map[resourceName]int{}
		for _, w := range wishes {
			seen[w.resource]++
		}
		for _, w := range wishes {
			err := errTwice
			if seen[w.resource] == 1 {
				err = b.alterResource(r, w, validateOnly)
			}
			code, message := b.codeAndMessage(err)
			done(w.resource, code, message)
		}
		r.Respond(resp)
	})
}

var errTwice = withMessage(kerr.InvalidRequest, "Each resource must appear at most once.")

type resourceName struct {
	kind kmsg.ConfigResourceType
	name string
}

func (b *Broker) codeAndMessage(err error) (int16, *string) {
	if err == nil {
		return 0, nil
	}
	message := errorMessage(err)
	return b.errorCode(err), &message
}

func (b *Broker) alterResource(r *wire.Request, w alteration, validateOnly bool) error {
	if err := checkChanges(w.changes); err != nil {
		return err
	}
	name := w.resource.name
	switch w.resource.kind {
	case kmsg.ConfigResourceTypeTopic:
		if !b.allowed(r, opAlterConfigs, topicResource(name)) {
			return kerr.TopicAuthorizationFailed
		}
		return b.alterTopic(name, w.changes, w.replace, validateOnly)
	case kmsg.ConfigResourceTypeBroker:
		if !b.allowed(r, opAlterConfigs, clusterResource) {
			return kerr.ClusterAuthorizationFailed
		}
		if err := b.alterableBroker(name); err != nil {
			return err
		}
		return b.alterBroker(name, w.changes, w.replace, validateOnly)
	}
	return withMessage(kerr.InvalidRequest, fmt.Sprintf("Unknown resource type %d", w.resource.kind))
}

// alterableBroker refuses a broker's own resource that was sent to another broker. The empty name is the cluster's default.
func (b *Broker) alterableBroker(name string) error {
	if name == "" {
		return nil
	}
	id, err := brokerNumber(name, "Node")
	if err == nil && id != b.id {
		err = withMessage(kerr.InvalidRequest, fmt.Sprintf("Unexpected broker id, expected %d, but received %s", b.id, name))
	}
	return err
}

func checkChanges(changes []change) error {
	seen := map[string]bool{}
	for _, c := range changes {
		if seen[c.name] {
			return withMessage(kerr.InvalidRequest, "Error due to duplicate config keys")
		}
		seen[c.name] = true
		if c.value == nil && c.op != kmsg.IncrementalAlterConfigOpDelete {
			return withMessage(kerr.InvalidRequest, "Null value not supported for : "+c.name)
		}
	}
	return nil
}

func (b *Broker) alterTopic(topic string, changes []change, replace, validateOnly bool) error {
	if topic == "" {
		return withMessage(kerr.InvalidRequest, "Default topic resources are not allowed.")
	}
	if b.metadata.load().topics[topic] == nil {
		return withMessage(kerr.UnknownTopicOrPartition, "The topic '"+topic+"' does not exist.")
	}
	s := b.zk.Session()
	current, err := zkcoord.ReadConfig(s, zkcoord.EntityTopics, topic)
	if err != nil {
		return err
	}
	snapshot := b.config.Load()
	next, err := applyChanges(current, changes, replace, func(name string) (effective string, list bool) {
		i, known := config.LookupTopic(name)
		if !known {
			return "", false
		}
		t, err := config.ResolveTopic(snapshot, current)
		if err != nil {
			return "", false
		}
		return t.Value(name), i.Type == config.List
	})
	if err != nil {
		return err
	}
	if err := config.ValidateTopic(snapshot, next); err != nil {
		if strings.HasPrefix(err.Error(), "Unknown ") {
			return withMessage(kerr.InvalidConfig, err.Error())
		}
		return withMessage(kerr.InvalidConfig, fmt.Sprintf("Invalid config value for resource ConfigResource(type=TOPIC, name='%s'): %s", topic, err))
	}
	if validateOnly {
		return nil
	}
	return zkcoord.WriteConfig(s, zkcoord.EntityTopics, topic, next)
}

func (b *Broker) alterBroker(name string, changes []change, replace, validateOnly bool) error {
	entity, forAll := name, name == ""
	if forAll {
		entity = zkcoord.DefaultEntity
	}
	s := b.zk.Session()
	current, err := zkcoord.ReadConfig(s, zkcoord.EntityBrokers, entity)
	if err != nil {
		return err
	}
	snapshot := b.config.Load()
	next, err := applyChanges(current, changes, replace, func(name string) (string, bool) {
		i, known := config.Lookup(name)
		text, _, _ := snapshot.Value(name)
		return text, known && (i.Type == config.List || name == "log.cleanup.policy")
	})
	if err != nil {
		return err
	}
	for _, c := range changes {
		if text, set := next[c.name]; set {
			if err := config.CheckDynamic(c.name, text, forAll); err != nil {
				return withMessage(kerr.InvalidRequest, err.Error())
			}
			if config.IsSensitive(c.name) { // in the clear they must not come into ZooKeeper, where anybody may read them
				if next[c.name], err = security.EncodePassword(snapshot, config.Password(text)); err != nil {
					return withMessage(kerr.InvalidRequest, "Password encoder secret not configured or not usable: "+err.Error())
				}
			}
		}
	}
	if validateOnly {
		return nil
	}
	return zkcoord.WriteConfig(s, zkcoord.EntityBrokers, entity, next)
}

// applyChanges is the set of settings after a request. look tells a key's effective value and whether it is a list.
func applyChanges(current map[string]string, changes []change, replace bool, look func(string) (string, bool)) (map[string]string, error) {
	next := maps.Clone(current)
	if next == nil || replace {
		next = map[string]string{}
	}
	for _, c := range changes {
		switch c.op {
		case kmsg.IncrementalAlterConfigOpSet:
			next[c.name] = *c.value
		case kmsg.IncrementalAlterConfigOpDelete:
			delete(next, c.name)
		case kmsg.IncrementalAlterConfigOpAppend, kmsg.IncrementalAlterConfigOpSubtract:
			effective, list := look(c.name)
			if !list {
				return nil, withMessage(kerr.InvalidConfig, fmt.Sprintf("Config value %s is not allowed for config key: %s", operationName[c.op], c.name))
			}
			next[c.name] = changeList(effective, *c.value, c.op == kmsg.IncrementalAlterConfigOpAppend)
		default:
			return nil, withMessage(kerr.InvalidRequest, fmt.Sprintf("Unknown operation %d on config key: %s", c.op, c.name))
		}
	}
	return next, nil
}

var operationName = map[kmsg.IncrementalAlterConfigOp]string{
	kmsg.IncrementalAlterConfigOpAppend: "append", kmsg.IncrementalAlterConfigOpSubtract: "subtract",
}

func changeList(have, change string, appending bool) string {
	split := func(s string) []string {
		return slices.DeleteFunc(strings.Split(s, ","), func(e string) bool { return strings.TrimSpace(e) == "" })
	}
	list := split(have)
	for _, e := range split(change) {
		at := slices.Index(list, e)
		switch {
		case appending && at < 0:
			list = append(list, e)
		case !appending && at >= 0:
			list = slices.Delete(list, at, at+1)
		}
	}
	return strings.Join(list, ",")
}
