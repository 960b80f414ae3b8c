package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// step is one entry of a schedule: wait, inject, hold, heal. Everything in it follows from the seed; which broker "the leader" is
// shows only when it happens.
type step struct {
	Quiet   time.Duration // before
	Settled bool          // wait for all replicas in sync before
	Faults  []planned     // one to three that overlap
}

type planned struct {
	Kind      string
	Role      role
	Partition int32         // whose leader or follower
	Hold      time.Duration // from injection to heal
	Draw      uint64        // further choices of the kind
}

// role says which broker is meant.
type role string

const (
	leader     role = "leader"
	follower   role = "follower"
	controller role = "controller"
	ensemble   role = "zookeeper" // no broker
)

func (p planned) String() string {
	return fmt.Sprintf("%s of %s/%d for %v", p.Kind, p.Role, p.Partition, p.Hold)
}

func (s step) String() string {
	text := fmt.Sprintf("after %v", s.Quiet)
	if s.Settled {
		text += " in sync"
	}
	for _, p := range s.Faults {
		text += ": " + p.String()
	}
	return text
}

// planner draws an endless schedule. Every kind comes once before any comes again.
type planner struct {
	chance     *rand.Rand
	kinds      []kind
	partitions int32
	session    time.Duration
	deck       []planned
}

func newPlanner(seed uint64, kinds []kind, partitions int32, session time.Duration) *planner {
	return &planner{chance: rand.New(rand.NewPCG(seed, 0x07714a)), kinds: kinds, partitions: partitions, session: session}
}

func (p *planner) next() step {
	s := step{
		Quiet:   time.Duration(300+p.chance.IntN(1200)) * time.Millisecond,
		Settled: p.chance.IntN(5) > 0,
		Faults:  []planned{p.draw()},
	}
	for len(s.Faults) < 3 && p.chance.IntN(10) < 5 {
		s.Faults = append(s.Faults, p.draw())
	}
	return s
}

func (p *planner) draw() planned {
	if len(p.deck) == 0 {
		for _, k := range p.kinds {
			for _, r := range k.roles {
				p.deck = append(p.deck, planned{Kind: k.name, Role: r})
			}
		}
		p.chance.Shuffle(len(p.deck), func(i, j int) { p.deck[i], p.deck[j] = p.deck[j], p.deck[i] })
	}
	f := p.deck[0]
	p.deck = p.deck[1:]
	k := p.kinds[slices.IndexFunc(p.kinds, func(k kind) bool { return k.name == f.Kind })]
	low, high := k.hold[0], k.hold[1]
	f.Hold = time.Duration((low + p.chance.Float64()*(high-low)) * float64(p.session)).Round(time.Millisecond)
	f.Partition = p.chance.Int32N(p.partitions)
	f.Draw = p.chance.Uint64()
	return f
}
