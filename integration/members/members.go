// Package members is what the members of the group tests have in common: one small program for each client family, which joins
// a group, handles records, commits, and tells on its standard output what it does:
//
//	assigned  PARTITION …            revoked PARTITION …            lost PARTITION …
//	handled   PARTITION OFFSET VALUE
//	committed PARTITION OFFSET       acknowledged; the offset is the next one to be handled
//	error     TEXT                   something failed, and the client goes on
//
// Arguments: bootstrap servers, group, topic, session timeout in ms, assignor, and the instance of a static member ("-" for a
// dynamic one). A record is told before it is committed. SIGTERM makes a member leave and end.
package members

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Settings are the arguments of a member.
type Settings struct {
	Bootstrap, Group, Topic string
	Session                 time.Duration
	Assignor                string
	Instance                string // "": dynamic
}

// Arguments reads the command line; the program ends when it is not as it must be.
func Arguments() Settings {
	args := os.Args[1:]
	if len(args) != 6 {
		Fail(fmt.Errorf("want 6 arguments, have %d", len(args)))
	}
	ms, err := strconv.Atoi(args[3])
	if err != nil {
		Fail(err)
	}
	s := Settings{Bootstrap: args[0], Group: args[1], Topic: args[2], Session: time.Duration(ms) * time.Millisecond, Assignor: args[4]}
	if args[5] != "-" {
		s.Instance = args[5]
	}
	return s
}

// Fail ends the program.
func Fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// Say tells of partitions.
func Say(what string, partitions []int32) {
	var line bytes.Buffer
	line.WriteString(what)
	for _, p := range partitions {
		fmt.Fprintf(&line, " %d", p)
	}
	fmt.Println(line.String())
}

// Handled tells of one record.
func Handled(partition int32, offset int64, value []byte) {
	fmt.Printf("handled %d %d %s\n", partition, offset, value)
}

// Committed tells of acknowledged commits.
func Committed(next map[int32]int64) {
	for p, offset := range next {
		fmt.Printf("committed %d %d\n", p, offset)
	}
}
