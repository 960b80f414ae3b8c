// Package wire is the network side of a broker: listeners, connections, the order of answers, and the few layouts of the
// Kafka protocol that are written by hand. It knows frames, headers and versions; what a request means is the business of
// the handlers in the Table.
//
// What one request costs, and why:
//
//   - One goroutine per connection reads, decodes, handles and answers. Handing the answer to a second goroutine would cost
//     a wake-up (8–28 µs) per round trip.
//   - An idle connection holds a goroutine and no buffer: it waits for readability, and only then takes a read buffer from a
//     pool. Frames that fit the read buffer share reads; larger ones are read straight into a pooled frame.
//   - Answers leave in the order of the requests. An answer that completes out of turn waits in the connection's queue; whoever
//     completes the head writes all that is ready with one write. While more complete requests are already buffered the
//     answers wait for the last of them (bounded), so that a burst of small requests costs one read and one write.
//   - Writes do not block: what the socket does not take is left to a writer goroutine, which exists only as long as the socket
//     is full.
//   - Foreign bytes pay before they cost: a declared frame length is a claim that is believed as bytes arrive, and Check walks
//     a body before it is decoded, so that no declared count can allocate more than a constant times the bytes received.
//
// # Ownership of frames
//
// A request's frame belongs to its connection until the answer has been built (Respond, RespondWith, NoResponse, Close); then it
// is recycled. Byte slices in Request.Body point into the frame, and so do the strings of an API that is marked Borrow: what
// outlives the answer must be cloned. In checked builds a recycled frame is overwritten.
package wire
