package broker

import (
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/quota"
	"ottla/broker/wire"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// DescribeClientQuotas v0–1, AlterClientQuotas v0–1: quotas of users, clients, clients of users, and addresses (KIP-546), from any
// broker.
//   - A filter's component names one entity of a type, the type's default, or any; with strict no others may take part.
//   - An address is never combined with a user or a client.
//   - Alter writes to /config and notifies, as for other settings. Each entity stands for itself.

// The types of entities, in the order in which they are told.
var quotaTypes = []string{"user", "client-id", "ip"}

// part is an entity's name of a type, "" where the type takes no part.
func part(e *cluster.ClientEntity, kind string) *string {
	switch kind {
	case "user":
		return &e.User
	case "client-id":
		return &e.Client
	}
	return &e.IP
}

func (b *Broker) handleDescribeClientQuotas(r *wire.Request, req *kmsg.DescribeClientQuotasRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeClientQuotasResponse)
	filter, err := quotaFilterOf(req)
	if err != nil {
		resp.ErrorCode, resp.ErrorMessage = b.codeAndMessage(err)
		return resp
	}
	b.tasks.run(func() {
		all, err := zkcoord.ReadClientEntities(b.zk.Session())
		if err != nil {
			resp.ErrorCode, resp.ErrorMessage = b.codeAndMessage(err)
			r.Respond(resp)
			return
		}
		resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{} // null is for errors
		for e, settings := range all {
			if values := quotaValues(settings); len(values) > 0 && filter.matches(e) {
				resp.Entries = append(resp.Entries, describeQuota(e, values))
			}
		}
		slices.SortFunc(resp.Entries, func(a, b kmsg.DescribeClientQuotasResponseEntry) int {
			return strings.Compare(entityText(a.Entity), entityText(b.Entity))
		})
		r.Respond(resp)
	})
	return nil
}

func entityText(entity []kmsg.DescribeClientQuotasResponseEntryEntity) string {
	var text strings.Builder
	for _, e := range entity {
		name := cluster.DefaultEntity
		if e.Name != nil {
			name = *e.Name
		}
		text.WriteString(e.Type + "=" + name + "\x00")
	}
	return text.String()
}

// quotaFilter says what is asked for, by types. A type that is not named may take part, unless the filter is strict.
type quotaFilter struct {
	of     map[string]kmsg.DescribeClientQuotasRequestComponent
	strict bool
}

func quotaFilterOf(req *kmsg.DescribeClientQuotasRequest) (*quotaFilter, error) {
	f := &quotaFilter{of: map[string]kmsg.DescribeClientQuotasRequestComponent{}, strict: req.Strict}
	for _, c := range req.Components {
		_, twice := f.of[c.EntityType]
		switch {
		case c.EntityType == "":
			return nil, withMessage(kerr.InvalidRequest, "Unexpected empty filter component entity type")
		case !slices.Contains(quotaTypes, c.EntityType):
			return nil, withMessage(kerr.UnsupportedVersion, "Custom entity type '"+c.EntityType+"' not supported")
		case twice:
			return nil, withMessage(kerr.InvalidRequest, "Duplicate "+filterNames[c.EntityType]+" filter component entity type")
		case c.MatchType < kmsg.QuotasMatchTypeExact || c.MatchType > kmsg.QuotasMatchTypeAny:
			return nil, withMessage(kerr.InvalidRequest, fmt.Sprintf("Unexpected match type: %d", c.MatchType))
		}
		f.of[c.EntityType] = c
	}
	_, ip := f.of["ip"]
	if ip && len(f.of) > 1 {
		return nil, withMessage(kerr.InvalidRequest,
			"Invalid entity filter component combination, IP filter component should not be used with user or clientId filter component.")
	}
	return f, nil
}

var filterNames = map[string]string{"user": "user", "client-id": "client id", "ip": "ip"}

func (f *quotaFilter) matches(e cluster.ClientEntity) bool {
	for _, kind := range quotaTypes {
		name := *part(&e, kind)
		c, asked := f.of[kind]
		if !asked && name != "" && f.strict || asked && !matchesQuota(c, name) {
			return false
		}
	}
	return true
}

func matchesQuota(c kmsg.DescribeClientQuotasRequestComponent, name string) bool {
	switch c.MatchType {
	case kmsg.QuotasMatchTypeExact:
		return c.Match != nil && name == *c.Match
	case kmsg.QuotasMatchTypeDefault:
		return name == cluster.DefaultEntity
	}
	return name != ""
}

// quotaValues picks the quotas out of an entity's settings.
func quotaValues(settings map[string]string) []kmsg.DescribeClientQuotasResponseEntryValue {
	var values []kmsg.DescribeClientQuotasResponseEntryValue
	for _, key := range quota.Keys {
		v, err := strconv.ParseFloat(settings[key], 64)
		if err != nil {
			continue
		}
		out := kmsg.NewDescribeClientQuotasResponseEntryValue()
		out.Key, out.Value = key, v
		values = append(values, out)
	}
	return values
}

func describeQuota(e cluster.ClientEntity, values []kmsg.DescribeClientQuotasResponseEntryValue) kmsg.DescribeClientQuotasResponseEntry {
	out := kmsg.NewDescribeClientQuotasResponseEntry()
	out.Values = values
	for _, kind := range quotaTypes {
		name := *part(&e, kind)
		if name == "" {
			continue
		}
		of := kmsg.NewDescribeClientQuotasResponseEntryEntity()
		of.Type = kind
		if name != cluster.DefaultEntity {
			of.Name = &name
		}
		out.Entity = append(out.Entity, of)
	}
	return out
}

func (b *Broker) handleAlterClientQuotas(r *wire.Request, req *kmsg.AlterClientQuotasRequest) kmsg.Response {
	may := b.allowed(r, opAlterConfigs, clusterResource)
	b.tasks.run(func() {
		resp := req.ResponseKind().(*kmsg.AlterClientQuotasResponse)
		for i := range req.Entries {
			entry := &req.Entries[i]
			err := error(kerr.ClusterAuthorizationFailed)
			if may {
				err = b.alterQuota(entry, req.ValidateOnly)
			}
			out := kmsg.NewAlterClientQuotasResponseEntry()
			out.ErrorCode, out.ErrorMessage = b.codeAndMessage(err)
			for _, e := range entry.Entity {
				of := kmsg.NewAlterClientQuotasResponseEntryEntity()
				of.Type, of.Name = e.Type, e.Name
				out.Entity = append(out.Entity, of)
			}
			resp.Entries = append(resp.Entries, out)
		}
		r.Respond(resp)
	})
	return nil
}

func (b *Broker) alterQuota(entry *kmsg.AlterClientQuotasRequestEntry, validateOnly bool) error {
	e, err := quotaEntityOf(entry.Entity)
	if err != nil {
		return err
	}
	entityType, name := zkcoord.ClientEntityPath(e)
	s := b.zk.Session()
	settings, err := zkcoord.ReadConfig(s, entityType, name)
	if err != nil {
		return err
	}
	for _, op := range entry.Ops {
		if op.Remove {
			delete(settings, op.Key)
			continue
		}
		if settings[op.Key], err = quotaText(e, op.Key, op.Value); err != nil {
			return err
		}
	}
	if validateOnly {
		return nil
	}
	return zkcoord.WriteConfig(s, entityType, name, settings)
}

func quotaEntityOf(entity []kmsg.AlterClientQuotasRequestEntryEntity) (e cluster.ClientEntity, err error) {
	if len(entity) == 0 {
		return e, withMessage(kerr.InvalidRequest, "Invalid empty client quota entity")
	}
	for _, of := range entity {
		if !slices.Contains(quotaTypes, of.Type) {
			return e, withMessage(kerr.InvalidRequest, "Unhandled client quota entity type: "+of.Type)
		}
		name := cluster.DefaultEntity
		if of.Name != nil {
			name = *of.Name
		}
		if name == "" {
			return e, withMessage(kerr.InvalidRequest, "Empty "+of.Type+" not supported")
		}
		*part(&e, of.Type) = name
	}
	switch {
	case e.IP != "" && (e.User != "" || e.Client != ""):
		return e, withMessage(kerr.InvalidRequest, "Invalid quota entity combination, IP entity should not be combined with User or ClientId")
	case e.IP != "" && e.IP != cluster.DefaultEntity && !resolves(e.IP):
		return e, withMessage(kerr.InvalidRequest, e.IP+" is not a valid IP or resolvable host.")
	}
	return e, nil
}

func resolves(host string) bool {
	if net.ParseIP(host) != nil {
		return true
	}
	found, err := net.LookupHost(host)
	return err == nil && len(found) > 0
}

// quotaText is a quota's value as it is stored: rates of bytes and connections are whole numbers.
func quotaText(e cluster.ClientEntity, key string, value float64) (string, error) {
	kind := quota.Kind(slices.Index(quota.Keys[:], key))
	if kind < 0 || (kind == quota.Connections) != (e.IP != "") {
		return "", withMessage(kerr.InvalidRequest, "Invalid configuration key "+key)
	}
	if value <= 0 && kind != quota.Connections || value < 0 || math.IsNaN(value) || math.IsInf(value, 0) {
		return "", withMessage(kerr.InvalidRequest, fmt.Sprintf("Quota %s must be greater than 0", key))
	}
	switch kind {
	case quota.Request, quota.Mutation:
		return javaDouble(value), nil
	}
	const epsilon = 1e-6
	whole := math.Floor(value + epsilon)
	if math.Abs(whole-value) > epsilon {
		return "", withMessage(kerr.InvalidRequest, fmt.Sprintf("Configuration %s must be a %s value", key, map[bool]string{true: "Int", false: "Long"}[kind == quota.Connections]))
	}
	return strconv.FormatFloat(whole, 'f', 0, 64), nil
}

// javaDouble writes a number as Java does: 200.0, 1.0E7.
func javaDouble(v float64) string {
	if v != 0 && (math.Abs(v) < 1e-3 || math.Abs(v) >= 1e7) {
		mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(v, 'E', -1, 64), "E")
		if !strings.Contains(mantissa, ".") {
			mantissa += ".0"
		}
		n, _ := strconv.Atoi(exponent)
		return mantissa + "E" + strconv.Itoa(n)
	}
	text := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}
