package integration

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// groupScript says odd things to a broker's group coordinator, and writes down what it answers, so that two brokers can be
// compared. Ids that the broker makes up are replaced by names.
type groupScript struct {
	t       testing.TB
	address string
	lines   []string
	names   map[string]string
}

// member is one client: a connection, a client id, and what it was told.
type scriptMember struct {
	s        *groupScript
	conn     net.Conn
	client   string
	id       string
	instance *string
	group    string
	gen      int32
}

func (s *groupScript) title(format string, args ...any) {
	s.lines = append(s.lines, "# "+fmt.Sprintf(format, args...))
}

func (s *groupScript) member(client, group string) *scriptMember {
	s.t.Helper()
	conn, err := net.DialTimeout("tcp", s.address, 5*time.Second)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return &scriptMember{s: s, conn: conn, client: client, group: group, gen: -1}
}

// ask sends a request at a version; say writes the answer down too.
func (m *scriptMember) ask(version int16, req kmsg.Request) kmsg.Response {
	m.s.t.Helper()
	resp, err := m.trip(version, req)
	if err != nil {
		m.s.t.Fatalf("%s: %s v%d: %v", m.client, kmsg.NameForKey(req.Key()), version, err)
	}
	return resp
}

func (m *scriptMember) say(what string, version int16, req kmsg.Request) kmsg.Response {
	m.s.t.Helper()
	resp, err := m.trip(version, req)
	m.s.note(m.client+" "+what, req, version, resp, err)
	return resp
}

// parked is an answer that is still to come.
type parked struct {
	m       *scriptMember
	what    string
	version int16
	req     kmsg.Request
	done    chan struct{}
	resp    kmsg.Response
	err     error
}

// later sends a request whose answer waits for somebody else; the broker has a moment to take it.
func (m *scriptMember) later(what string, version int16, req kmsg.Request) *parked {
	p := &parked{m: m, what: what, version: version, req: req, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.resp, p.err = m.trip(version, req)
	}()
	time.Sleep(100 * time.Millisecond)
	return p
}

func (p *parked) wait() kmsg.Response {
	p.m.s.t.Helper()
	<-p.done
	p.m.s.note(p.m.client+" "+p.what, p.req, p.version, p.resp, p.err)
	return p.resp
}

func (m *scriptMember) trip(version int16, req kmsg.Request) (kmsg.Response, error) {
	req.SetVersion(version)
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID(m.client))
	_ = m.conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := m.conn.Write(f.AppendRequest(nil, req, 1)); err != nil {
		return nil, err
	}
	var head [4]byte
	if _, err := io.ReadFull(m.conn, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(m.conn, body); err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	resp.SetVersion(version)
	body = body[4:]
	if resp.IsFlexible() {
		body = body[1:]
	}
	return resp, resp.ReadFrom(body)
}

var madeUpID = regexp.MustCompile(`[A-Za-z0-9_.-]*-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// note writes an answer down, with the order of lists and the made-up ids taken out.
func (s *groupScript) note(what string, req kmsg.Request, version int16, resp kmsg.Response, err error) {
	line := fmt.Sprintf("%s: %s v%d: ", what, kmsg.NameForKey(req.Key()), version)
	if err != nil {
		s.lines = append(s.lines, line+"error "+regexp.MustCompile(`.*: `).ReplaceAllString(err.Error(), ""))
		return
	}
	s.sort(resp)
	text, _ := json.Marshal(resp)
	text = madeUpID.ReplaceAllFunc(text, func(id []byte) []byte { return []byte(s.name(string(id))) })
	out := string(text)
	for _, code := range regexp.MustCompile(`"ErrorCode":(-?\d+)`).FindAllStringSubmatch(out, -1) {
		var n int16
		_, _ = fmt.Sscan(code[1], &n)
		name := "NONE"
		if e := kerr.ErrorForCode(n); e != nil {
			name = strings.SplitN(e.Error(), ":", 2)[0]
		}
		out = strings.Replace(out, code[0]+",", `"Error":"`+name+`",`, 1)
		out = strings.Replace(out, code[0]+"}", `"Error":"`+name+`"}`, 1)
	}
	out = regexp.MustCompile(`"(Version|ThrottleMillis)":\d+,?|,?"UnknownTags":\{\}|"TopicID":\[[0,]*\],?`).ReplaceAllString(out, "")
	s.lines = append(s.lines, line+out)
}

func (s *groupScript) name(id string) string {
	if _, ok := s.names[id]; !ok {
		s.names[id] = fmt.Sprintf("%s#%d", id[:len(id)-37], len(s.names)+1)
	}
	return s.names[id]
}

func (s *groupScript) sort(resp kmsg.Response) {
	switch r := resp.(type) {
	case *kmsg.JoinGroupResponse:
		slices.SortFunc(r.Members, func(a, b kmsg.JoinGroupResponseMember) int { return cmp.Compare(a.MemberID, b.MemberID) })
	case *kmsg.DescribeGroupsResponse:
		for i := range r.Groups {
			slices.SortFunc(r.Groups[i].Members, func(a, b kmsg.DescribeGroupsResponseGroupMember) int { return cmp.Compare(a.MemberID, b.MemberID) })
		}
	case *kmsg.ListGroupsResponse:
		slices.SortFunc(r.Groups, func(a, b kmsg.ListGroupsResponseGroup) int { return cmp.Compare(a.Group, b.Group) })
	case *kmsg.DeleteGroupsResponse:
		slices.SortFunc(r.Groups, func(a, b kmsg.DeleteGroupsResponseGroup) int { return cmp.Compare(a.Group, b.Group) })
	case *kmsg.FindCoordinatorResponse:
		r.Port = min(r.Port, 1)
		for i := range r.Coordinators {
			r.Coordinators[i].Port = min(r.Coordinators[i].Port, 1)
		}
	case *kmsg.OffsetFetchResponse:
		slices.SortFunc(r.Topics, func(a, b kmsg.OffsetFetchResponseTopic) int { return cmp.Compare(a.Topic, b.Topic) })
		for _, t := range r.Topics {
			slices.SortFunc(t.Partitions, func(a, b kmsg.OffsetFetchResponseTopicPartition) int { return cmp.Compare(a.Partition, b.Partition) })
		}
		for _, g := range r.Groups {
			slices.SortFunc(g.Topics, func(a, b kmsg.OffsetFetchResponseGroupTopic) int { return cmp.Compare(a.Topic, b.Topic) })
			for _, t := range g.Topics {
				slices.SortFunc(t.Partitions, func(a, b kmsg.OffsetFetchResponseGroupTopicPartition) int {
					return cmp.Compare(a.Partition, b.Partition)
				})
			}
		}
	case *kmsg.OffsetCommitResponse:
		slices.SortFunc(r.Topics, func(a, b kmsg.OffsetCommitResponseTopic) int { return cmp.Compare(a.Topic, b.Topic) })
		for _, t := range r.Topics {
			slices.SortFunc(t.Partitions, func(a, b kmsg.OffsetCommitResponseTopicPartition) int { return cmp.Compare(a.Partition, b.Partition) })
		}
	case *kmsg.OffsetDeleteResponse:
		slices.SortFunc(r.Topics, func(a, b kmsg.OffsetDeleteResponseTopic) int { return cmp.Compare(a.Topic, b.Topic) })
		for _, t := range r.Topics {
			slices.SortFunc(t.Partitions, func(a, b kmsg.OffsetDeleteResponseTopicPartition) int { return cmp.Compare(a.Partition, b.Partition) })
		}
	}
}

// subscribed is the metadata of a consumer that subscribes to these topics.
func subscribed(topics ...string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Version, m.Topics = 1, topics
	return m.AppendTo(nil)
}

// join builds a JoinGroup of this member, with "range" over topic t unless protocols are given.
func (m *scriptMember) join(protocols ...kmsg.JoinGroupRequestProtocol) *kmsg.JoinGroupRequest {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Group, r.MemberID, r.InstanceID, r.ProtocolType = m.group, m.id, m.instance, "consumer"
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = 10_000, 2_000
	r.Protocols = protocols
	if protocols == nil {
		r.Protocols = []kmsg.JoinGroupRequestProtocol{offer("range", subscribed("t"))}
	}
	return r
}

func offer(name string, metadata []byte) kmsg.JoinGroupRequestProtocol {
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = name, metadata
	return p
}

func (m *scriptMember) sync(assign ...any) *kmsg.SyncGroupRequest {
	r := kmsg.NewPtrSyncGroupRequest()
	r.Group, r.MemberID, r.InstanceID, r.Generation = m.group, m.id, m.instance, m.gen
	r.ProtocolType, r.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
	for i := 0; i+1 < len(assign); i += 2 {
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberID, a.MemberAssignment = assign[i].(string), []byte(assign[i+1].(string))
		r.GroupAssignment = append(r.GroupAssignment, a)
	}
	return r
}

func (m *scriptMember) heartbeat() *kmsg.HeartbeatRequest {
	r := kmsg.NewPtrHeartbeatRequest()
	r.Group, r.MemberID, r.InstanceID, r.Generation = m.group, m.id, m.instance, m.gen
	return r
}

func (m *scriptMember) leave(members ...kmsg.LeaveGroupRequestMember) *kmsg.LeaveGroupRequest {
	r := kmsg.NewPtrLeaveGroupRequest()
	r.Group, r.MemberID, r.Members = m.group, m.id, members
	if members == nil {
		r.Members = []kmsg.LeaveGroupRequestMember{leaving(m.id, m.instance)}
	}
	return r
}

func leaving(id string, instance *string) kmsg.LeaveGroupRequestMember {
	l := kmsg.NewLeaveGroupRequestMember()
	l.MemberID, l.InstanceID = id, instance
	return l
}

func (m *scriptMember) commit(topic string, partition int32, offset int64, metadata string) *kmsg.OffsetCommitRequest {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Group, r.MemberID, r.InstanceID, r.Generation, r.RetentionTimeMillis = m.group, m.id, m.instance, m.gen, -1
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset, p.Metadata, p.LeaderEpoch = partition, offset, &metadata, -1
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic, t.Partitions = topic, []kmsg.OffsetCommitRequestTopicPartition{p}
	r.Topics = []kmsg.OffsetCommitRequestTopic{t}
	return r
}

// fetch asks for partitions of topic t, or for everything without any.
func (m *scriptMember) fetch(topic string, partitions ...int32) *kmsg.OffsetFetchRequest {
	r := kmsg.NewPtrOffsetFetchRequest()
	r.Group = m.group
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = m.group
	if len(partitions) > 0 {
		r.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: topic, Partitions: partitions}}
		g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: topic, Partitions: partitions}}
	}
	r.Groups = []kmsg.OffsetFetchRequestGroup{g}
	return r
}

// admit makes the member the only one of its group, stable, without writing anything down.
func (m *scriptMember) admit(protocols ...kmsg.JoinGroupRequestProtocol) *scriptMember {
	m.s.t.Helper()
	m.first(protocols...)
	m.ask(3, m.sync(m.id, "mine"))
	return m
}

// first joins as the only member, and does not sync.
func (m *scriptMember) first(protocols ...kmsg.JoinGroupRequestProtocol) *scriptMember {
	m.s.t.Helper()
	version := int16(3)
	if m.instance != nil {
		version = 5
	}
	m.took(m.ask(version, m.join(protocols...)))
	return m
}

// took remembers who the member is now.
func (m *scriptMember) took(resp kmsg.Response) {
	m.s.t.Helper()
	r := resp.(*kmsg.JoinGroupResponse)
	if r.ErrorCode != 0 {
		m.s.t.Fatalf("%s could not join: %v", m.client, kerr.ErrorForCode(r.ErrorCode))
	}
	m.id, m.gen = r.MemberID, r.Generation
	m.s.name(m.id)
}
