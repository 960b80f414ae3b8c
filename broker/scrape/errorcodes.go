package scrape

import (
	"reflect"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
)

// eachError tells the error codes of an answer: the answer's own, if it has one, and those of its topics, partitions, groups …
// Answers that are frequent or large are walked by hand, the rest by reflection along a plan that is made once for each type.
func eachError(enc wire.Encoder, tell func(code int16)) {
	switch a := enc.(type) {
	case eachErrorer:
		a.EachError(tell)
	case *kmsg.HeartbeatResponse:
		tell(a.ErrorCode)
	case *kmsg.FindCoordinatorResponse:
		tell(a.ErrorCode)
		for i := range a.Coordinators {
			tell(a.Coordinators[i].ErrorCode)
		}
	case *kmsg.MetadataResponse:
		for i := range a.Topics {
			tell(a.Topics[i].ErrorCode)
		}
	case *kmsg.ListOffsetsResponse:
		for i := range a.Topics {
			for j := range a.Topics[i].Partitions {
				tell(a.Topics[i].Partitions[j].ErrorCode)
			}
		}
	case *kmsg.OffsetCommitResponse:
		for i := range a.Topics {
			for j := range a.Topics[i].Partitions {
				tell(a.Topics[i].Partitions[j].ErrorCode)
			}
		}
	case kmsg.Response:
		v := reflect.ValueOf(a).Elem()
		planOf(v.Type()).walk(v, tell)
	}
}

// errorPlan says where a struct has error codes.
type errorPlan struct {
	code  int // index of the field ErrorCode, -1 without
	lists []listPlan
}

// listPlan is a field that is a slice of structs with error codes.
type listPlan struct {
	field int
	plan  *errorPlan
}

func planOf(t reflect.Type) *errorPlan {
	if p, ok := errorPlans.Load(t); ok {
		return p.(*errorPlan)
	}
	p := makePlan(t)
	errorPlans.Store(t, p)
	return p
}

func makePlan(t reflect.Type) *errorPlan {
	p := &errorPlan{code: -1}
	for i := range t.NumField() {
		f := t.Field(i)
		switch {
		case f.Name == "ErrorCode" && f.Type.Kind() == reflect.Int16:
			p.code = i
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
			if sub := makePlan(f.Type.Elem()); sub.code >= 0 || len(sub.lists) > 0 {
				p.lists = append(p.lists, listPlan{i, sub})
			}
		}
	}
	return p
}

func (p *errorPlan) walk(v reflect.Value, tell func(code int16)) {
	if p.code >= 0 {
		tell(int16(v.Field(p.code).Int()))
	}
	for _, l := range p.lists {
		list := v.Field(l.field)
		for i := range list.Len() {
			l.plan.walk(list.Index(i), tell)
		}
	}
}
