package zktest

import (
	"testing"

	"go.uber.org/goleak"

	"ottla/zkcoord"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTreeKeepsTheContract(t *testing.T) {
	tree := NewTree()
	Contract(t, Ensemble{
		Open: func(t *testing.T) zkcoord.Session {
			s := tree.NewSession()
			t.Cleanup(s.Close)
			return s
		},
		Expire: func(_ *testing.T, s zkcoord.Session) { s.(*FakeSession).Expire() },
	})
}
