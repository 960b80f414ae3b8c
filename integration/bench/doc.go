// Package bench measures brokers side by side: the same workloads, from the same client, on the same machine and ensemble, in
// interleaved pairs, against the program under test and against Kafka 3.9. It is run by hand: make bench-kafka.
//
// The client is as lean as this machine allows, so that the broker is what is measured: blocking sockets on threads of their own,
// requests built once and patched in place (batches without producer ids, so their CRC stays true), answers read in bulk, and
// fetched records dropped inside the kernel (MSG_TRUNC). Each row stands beside two limits, taken in the same run with the same
// client: a floor, servers that read, check the CRC-32C, write and answer, and nothing else; and null, which does not even write.
//
// What a round is: a fresh topic, its load for a moment unmeasured, then the measured time or roundBytes, whichever ends first.
// Before the first workload both sides are loaded for BENCH_WARM seconds of each kind, and the first pair of each workload is
// dropped: a young JVM is many times slower than a warm one. Within each pair the two take turns in going first. CPU is
// what the kernel has charged to the brokers' processes, per payload byte acknowledged or fetched; GB is 10^9 bytes.
//
// Requests carry one batch for one partition. Each connection speaks to one partition and keeps inFlight bytes in flight.
package bench
