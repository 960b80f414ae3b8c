package zkserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// FourLetter sends one of ZooKeeper's four-letter words (srvr, ruok, mntr, …) and returns the answer.
func FourLetter(address, word string, timeout time.Duration) (string, error) {
	conn, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, word); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	return string(answer), err
}

// Mode returns what the server says of itself: standalone, leader, follower or observer. While it is not serving it is an error.
func Mode(address string) (string, error) {
	answer, err := FourLetter(address, "srvr", time.Second)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(answer) {
		if mode, found := strings.CutPrefix(line, "Mode: "); found {
			return strings.TrimSpace(mode), nil
		}
	}
	return "", fmt.Errorf("%s is not serving: %.80q", address, answer)
}

// WaitServing waits until the server takes part in a quorum.
func WaitServing(ctx context.Context, address string) error {
	for {
		_, err := Mode(address)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
