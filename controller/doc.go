// Package controller is the elected controller of the cluster: it turns what happens (brokers that come and go, topics, requests,
// notifications) into znode writes and into requests to brokers.
//
// # Shape
//
// Every broker runs a [Controller]. At most one of them reigns: the one whose ZooKeeper session owns /controller. A reign (reign.go)
// has its own model of the cluster (context.go), its own senders to the brokers (sender.go) and ends with the first doubt: a failed
// check of the controller epoch, the loss of the session, another id in /controller, a panic. Nothing is carried from one reign to
// the next; what waits for an ended reign is answered NOT_CONTROLLER.
//
// One goroutine, the loop (controller.go), takes events from one queue (event.go) and is the only one that touches the model.
// Watches, senders, timers and requests only enqueue. A watch says that something changed; what changed is read when the event is
// handled.
//
// Decisions are pure functions over the model and what was read (decide_*.go, assign.go). The shell around them (act_*.go) reads,
// writes and sends.
//
// # What holds
//
//   - Every write is under a check of the data version of /controller_epoch, as the election left it; partition states are also
//     conditional on the version that was read. A controller that was replaced can change nothing.
//   - The leader is a member of the ISR, the ISR a subset of the assignment, and never empty; a partition without leader has leader -1.
//   - The leader epoch rises with every write of the controller to a partition's state, except for ISR changes that the leader
//     itself proposed (AlterPartition).
//   - A broker hears of the other brokers (UpdateMetadata) before it hears of its partitions (LeaderAndIsr).
//   - States of partitions (new, online, offline) are derived from the model, not stored beside it: a partition is new while it has no
//     state znode, online while its leader is a registered broker with a working log directory, and offline otherwise.
//
// Sources: KIP-320, KIP-380, KIP-455, KIP-497, KIP-516, KIP-570, KIP-704, KIP-841.
package controller
