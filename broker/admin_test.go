package broker

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"ottla/config"
)

// TestABrokerThatStartsTellsSo: the admin port is open before anything else, and closed after everything else.
func TestABrokerThatStartsTellsSo(t *testing.T) {
	snapshot, err := config.FromMap(map[string]string{
		"zookeeper.connect": "127.0.0.1:1", "log.dirs": t.TempDir(), "zookeeper.connection.timeout.ms": "60000", "listeners": "PLAINTEXT://127.0.0.1:0",
	})
	require.NoError(t, err)
	b := New(snapshot, zerolog.Nop())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }() // waits for a ZooKeeper that is not there
	server := httptest.NewServer(b.adminHandler())
	defer server.Close()
	get := func(path string) (int, string) {
		resp, err := http.Get(server.URL + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(text)
	}
	status, text := get("/readyz?isr=full")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Equal(t, 4, strings.Count(text, "FAIL "), text)
	status, text = get("/livez")
	require.Equal(t, http.StatusOK, status, text)
	status, text = get("/v1/broker-state")
	require.Equal(t, http.StatusOK, status)
	require.JSONEq(t, `{"brokerState":1}`, text)
	status, _ = get("/v1/ready")
	require.Equal(t, http.StatusServiceUnavailable, status)
	status, text = get("/metrics")
	require.Equal(t, http.StatusOK, status)
	series, _ := parseScrape(t, text)
	require.EqualValues(t, 1, series["kafka_server_kafkaserver_brokerstate"])
	require.Zero(t, series["ottla_zookeeper_session_state"])
	status, _ = get("/nothing")
	require.Equal(t, http.StatusNotFound, status)

	cancel()
	require.NoError(t, <-ended)
}

func TestABadAdminAddressStopsTheStart(t *testing.T) {
	snapshot, err := config.FromMap(map[string]string{
		"zookeeper.connect": "127.0.0.1:1", "log.dirs": t.TempDir(), "ottla.admin.listener": "nowhere",
	})
	require.NoError(t, err)
	err = New(snapshot, zerolog.Nop()).Run(t.Context())
	require.ErrorContains(t, err, "ottla.admin.listener=nowhere")
}

// TestLivenessIsPatient: a loop that is busy for a while is no reason to kill the broker; one that hangs is.
func TestLivenessIsPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var starts atomic.Int32
		beats := []heartbeat{
			{"good", func(context.Context) error { return nil }, time.Minute},
			{"busy", func(context.Context) error { starts.Add(1); <-release; return nil }, time.Minute},
		}
		var l liveness
		verdicts := func() (errs []error) {
			for _, c := range l.look(t.Context(), beats) {
				errs = append(errs, c.err)
			}
			return errs
		}
		require.Equal(t, []error{nil, nil}, verdicts())
		time.Sleep(30 * time.Second)
		require.Equal(t, []error{nil, nil}, verdicts())
		time.Sleep(30 * time.Second)
		require.ErrorContains(t, verdicts()[1], "hangs for 1m")
		require.EqualValues(t, 1, starts.Load(), "it is not started again while it hangs")
		close(release)
		synctest.Wait()
		require.Equal(t, []error{nil, nil}, verdicts())
	})
	synctest.Test(t, func(t *testing.T) {
		var l liveness
		bad := errors.New("bad")
		require.Equal(t, bad, l.look(t.Context(), []heartbeat{{"bad", func(context.Context) error { return bad }, time.Minute}})[0].err)
	})
}
