package broker

import (
	"time"
)

// Lines that tools wait for. Test frameworks look for them in a broker's output; their wording is part of the interface.
const (
	lineRunning = "Transitioning from RECOVERY to RUNNING"
	lineStarted = "[KafkaServer id=%d] started (kafka.server.KafkaServer)"
)

// announce says that the broker serves.
func (b *Broker) announce(took time.Duration) {
	b.log.Info().Msg(lineRunning)
	b.log.Info().Int64("dur_ms", took.Milliseconds()).Msgf(lineStarted, b.id)
}
