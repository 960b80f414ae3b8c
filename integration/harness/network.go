package harness

import (
	"os/exec"
)

// Network gives each process of a cluster a machine of its own, so that the links between them can be cut. Machines are called
// broker-N and zookeeper-N. Without one, all run on the loopback.
type Network interface {
	// Address is the machine's address, the same from everywhere.
	Address(machine string) string
	// Start starts the command on the machine.
	Start(machine string, cmd *exec.Cmd) error
}

// brokerPort is where brokers listen on a machine of their own.
const brokerPort = 9092
