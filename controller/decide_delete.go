package controller

// deletionNext is what a topic under deletion can do next.
type deletionNext int

const (
	stepWait     deletionNext = iota // for answers, for a broker, or for the end of a reassignment
	stepStart                        // hide the topic and delete (again) the replicas that are left
	stepComplete                     // every replica is gone: delete the znodes
)

// deletionStep decides how the deletion of a topic goes on.
func (t *topic) deletionStep() deletionNext {
	if t.deletion == nil {
		return stepWait
	}
	all := true
	for p := range t.each() {
		for i := range p.replicas {
			switch p.replicas[i].deletion {
			case deletionStarted:
				return stepWait
			case deletionSuccessful:
			default:
				all = false
			}
		}
	}
	switch {
	case all && t.deletion.started:
		return stepComplete
	case t.deletion.ineligible != "":
		return stepWait
	}
	return stepStart
}
