package testzk

import "testing"

func TestEnsembleServesAfterKillAndRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("starts java")
	}
	e := Start(t, 3)
	leader := e.Leader()
	if leader == 0 {
		t.Fatal("no leader")
	}
	e.Kill(leader)
	e.Restart(leader)
	if e.Leader() == 0 {
		t.Fatal("no leader after the restart")
	}
}
