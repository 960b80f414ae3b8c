package integration

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"ottla/integration/harness"
	"ottla/internal/freeport"
)

// TestControlPlaneHasAListenerOfItsOwn has the controller talk to the brokers, and they to it, on control.plane.listener.name.
func TestControlPlaneHasAListenerOfItsOwn(t *testing.T) {
	ports := map[int]int{}
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 2), Prepare: func(b *harness.Broker) {
		ports[b.ID] = freeport.Find(t, 1)[0]
		addProperties(t, b, map[string]string{
			"listeners":                      fmt.Sprintf("PLAINTEXT://%s,CONTROL://127.0.0.1:%d", b.Address, ports[b.ID]),
			"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROL:PLAINTEXT",
			"control.plane.listener.name":    "CONTROL",
		})
	}})
	createTopic(t, c, "orders", 4, 2, nil)
	produce(t, franz(t, c), "orders", numbered(100))
	id, _ := c.WaitController()
	for broker, port := range ports {
		if broker != id && connectionsTo(t, port) == 0 {
			t.Errorf("the controller %d does not talk to broker %d on its control plane's port %d", id, broker, port)
		}
	}
	c.Broker(id).Kill() // the other one takes over, and is told of it on its own port
	c.WaitLed("orders", 4, 1)
}

// connectionsTo counts the established connections to a port of the loopback.
func connectionsTo(t *testing.T, port int) (n int) {
	t.Helper()
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(file)
		if err != nil {
			t.Skip(err)
		}
		for line := range strings.Lines(string(table)) {
			f := strings.Fields(line)
			if len(f) < 4 || f[3] != "01" {
				continue
			}
			if _, hex, ok := strings.Cut(f[2], ":"); ok {
				if p, err := strconv.ParseUint(hex, 16, 16); err == nil && int(p) == port {
					n++
				}
			}
		}
	}
	return n
}
