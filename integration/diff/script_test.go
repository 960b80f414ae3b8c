package diff

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
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

	"ottla/integration/harness"
)

// script says one list of requests to a broker and writes its answers down, so that two brokers can be compared.
type script struct {
	t       testing.TB
	kind    harness.Kind
	address string
	dataDir string
	client  string // client id
	conn    net.Conn
	lines   []line
	again   func()            // asks what was asked last once more
	ids     map[string]string // topic ids by their JSON text
}

// line is one answer.
type line struct{ what, answer string }

// say sends a request at a version and writes the answer down. A connection that was closed instead is opened again.
func (s *script) say(what string, version int16, req kmsg.Request) kmsg.Response {
	s.t.Helper()
	resp, err := s.ask(version, req)
	s.again = func() { _, _ = s.ask(version, req) }
	what = fmt.Sprintf("%s: %s v%d", what, kmsg.NameForKey(req.Key()), version)
	if err != nil {
		s.lines = append(s.lines, line{what, "no answer: " + plainError(err)})
		return nil
	}
	s.lines = append(s.lines, line{what, s.render(resp)})
	return resp
}

func plainError(err error) string {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return "silence"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "reset"):
		return "connection closed"
	}
	return err.Error()
}

func (s *script) ask(version int16, req kmsg.Request) (resp kmsg.Response, err error) {
	s.t.Helper()
	if s.conn == nil {
		if s.conn, err = net.DialTimeout("tcp", s.address, 5*time.Second); err != nil {
			s.t.Fatal(err)
		}
	}
	defer func() {
		if err != nil {
			s.conn.Close()
			s.conn = nil
		}
	}()
	req.SetVersion(version)
	_ = s.conn.SetDeadline(time.Now().Add(5 * time.Second))
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID(s.client))
	if _, err := s.conn.Write(f.AppendRequest(nil, req, 1)); err != nil {
		return nil, err
	}
	if p, ok := req.(*kmsg.ProduceRequest); ok && p.Acks == 0 {
		return nil, s.expectSilence()
	}
	var head [4]byte
	if _, err := io.ReadFull(s.conn, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(s.conn, body); err != nil {
		return nil, err
	}
	resp = req.ResponseKind()
	resp.SetVersion(version)
	body = body[4:]
	if resp.IsFlexible() && resp.Key() != 18 {
		body = body[1:]
	}
	return resp, resp.ReadFrom(body)
}

var errSilent = errors.New("and the connection lives")

// expectSilence tells whether the broker closes the connection within a moment.
func (s *script) expectSilence() error {
	_ = s.conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	var b [1]byte
	_, err := s.conn.Read(b[:])
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errSilent
	}
	return err
}

// render makes text of an answer, without what differs from run to run.
func (s *script) render(resp kmsg.Response) string {
	text, err := json.Marshal(resp)
	if err != nil {
		s.t.Fatal(err)
	}
	var tree any
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber()
	if err := decoder.Decode(&tree); err != nil {
		s.t.Fatal(err)
	}
	tree = s.plain("", tree)
	if resp.Key() == int16(kmsg.Fetch) {
		joinTopics(tree.(map[string]any))
	}
	out, _ := json.Marshal(tree)
	return address.ReplaceAllString(strings.ReplaceAll(string(out), s.dataDir, "DIR"), "ADDRESS")
}

// plain takes out of a tree what may differ, names error codes, and sorts lists that have no order of their own.
func (s *script) plain(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range []string{"Version", "ThrottleMillis", "UnknownTags", "ClusterID", "TotalBytes", "UsableBytes"} {
			delete(v, k)
		}
		for k, child := range v {
			v[k] = s.plain(k, child)
		}
		return v
	case []any:
		if key == "TopicID" {
			return s.topicID(v)
		}
		for i := range v {
			v[i] = s.plain("", v[i])
		}
		slices.SortStableFunc(v, func(a, b any) int { return cmp.Compare(sortKey(a), sortKey(b)) })
		return v
	case json.Number:
		n, _ := v.Int64()
		switch {
		case strings.HasSuffix(key, "ErrorCode"):
			return errorName(int16(n))
		case key == "Port" && n > 0:
			return "PORT"
		case key == "SessionID" && n > 0:
			return "SESSION"
		case key == "LogAppendTime" && n > 0, key == "LastTimestamp" && n > 0, key == "StartTimestamp" && n > 0:
			return "TIME"
		}
		return v
	case string:
		if key == "Host" {
			return "HOST"
		}
		return v
	}
	return v
}

var address = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// joinTopics brings the partitions of one topic together: Kafka lists those that failed apart.
func joinTopics(fetch map[string]any) {
	topics, _ := fetch["Topics"].([]any)
	var out []any
	for _, t := range topics {
		topic := t.(map[string]any)
		last := len(out) - 1
		if last < 0 || sortKey(out[last]) != sortKey(t) {
			out = append(out, t)
			continue
		}
		joined := out[last].(map[string]any)
		joined["Partitions"] = append(joined["Partitions"].([]any), topic["Partitions"].([]any)...)
		slices.SortStableFunc(joined["Partitions"].([]any), func(a, b any) int { return cmp.Compare(sortKey(a), sortKey(b)) })
	}
	if len(out) > 0 {
		fetch["Topics"] = out
	}
}

func (s *script) topicID(id []any) string {
	text := fmt.Sprint(id)
	if strings.Trim(text, "[0 ]") == "" {
		return "none"
	}
	if name, ok := s.ids[text]; ok {
		return name
	}
	return "made up"
}

func errorName(code int16) string {
	if e := kerr.ErrorForCode(code); e != nil {
		return strings.SplitN(e.Error(), ":", 2)[0]
	}
	return "NONE"
}

func sortKey(v any) string {
	m, ok := v.(map[string]any)
	if !ok {
		return ""
	}
	var key strings.Builder
	for _, k := range []string{"Topic", "TopicID", "Partition", "Name", "NodeID", "ResourceType", "ResourceName", "TransactionalID", "ProducerID"} {
		switch field := m[k].(type) {
		case string:
			key.WriteString(field)
		case json.Number:
			n, _ := field.Int64()
			fmt.Fprintf(&key, "%08d", n)
		}
		key.WriteByte(0)
	}
	return key.String()
}
