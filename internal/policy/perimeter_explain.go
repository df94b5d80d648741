package policy

import (
	"maps"
	"slices"

	"sallyport/internal/ident"
)

// PerimeterInfo describes a perimeter of a Set. What it holds MUST NOT be changed.
type PerimeterInfo struct {
	ID string
	Perimeter
	// Levels are those that it demands, in full.
	Levels []Level
}

// Perimeters returns all perimeters: those of the server, and those of the namespaces in the order of their names.
func (s *Set) Perimeters() []PerimeterInfo {
	var list []PerimeterInfo
	for _, ns := range slices.Sorted(maps.Keys(s.borders)) {
		for _, b := range s.borders[ns].all {
			list = append(list, b.describe())
		}
	}
	return list
}

// Perimeter returns the perimeter of a namespace, or with "" of the server.
func (s *Set) Perimeter(ns ident.Namespace, name string) (PerimeterInfo, bool) {
	if f := s.borders[ns]; f != nil {
		for _, b := range f.all {
			if b.info.Name == name {
				return b.describe(), true
			}
		}
	}
	return PerimeterInfo{}, false
}

func (b *border) describe() PerimeterInfo {
	out := PerimeterInfo{ID: b.id, Perimeter: b.info}
	for _, l := range b.levels {
		out.Levels = append(out.Levels, l.info)
	}
	return out
}

// Inside returns the ids of the perimeters, sorted, that an event type, function or secret is inside of; or, for a namespace,
// those that all of its event types and all of its functions are.
func (s *Set) Inside(r Resource) []string {
	e := end{kind: r.Kind, ns: r.Namespace, name: r.Name}
	all := s.around(&e, nil)
	if r.Kind == KindNamespace {
		types, functions := end{kind: KindEventType, ns: r.Namespace, whole: true}, end{kind: KindFunction, ns: r.Namespace, whole: true}
		others := s.around(&functions, nil)
		all = slices.DeleteFunc(s.around(&types, nil), func(b *border) bool { return !slices.Contains(others, b) })
	}
	var ids []string
	for _, b := range all {
		ids = append(ids, b.id)
	}
	return ids
}

// PerimeterVerdict says what one perimeter makes of a request or delivery that crosses its border.
type PerimeterVerdict struct {
	ID     string
	Mode   Mode
	Inward bool // from outside to inside
	// Denied says that it denies; in dry-run, that it would.
	Denied bool
	// To is what it leads to, as bridges of the server name it: of a grant each thing that it reaches has a verdict of its own.
	To string
	// Bridge is the id of the bridge that is taken, "" when there is none.
	Bridge string
	// Bridges are all of the perimeter that lead to the resource, in the order of their names.
	Bridges []BridgeVerdict
	// Levels are those that it demands of who comes in.
	Levels []LevelVerdict
	// Needed is a bridge that would do, when there is none: for exactly this. Its name is for the operator to choose.
	Needed *Bridge
}

// BridgeVerdict says why a bridge that leads to the resource is taken or not.
type BridgeVerdict struct {
	ID string
	// From and Action say whether it begins at the principal, and is for the action.
	From, Action bool
	// Condition is its condition, nil without one.
	Condition *Condition
}

// LevelVerdict says whether an access level is met.
type LevelVerdict struct {
	Name  string
	Holds bool
	// Lacks are the keys of the level that are not met: ip, mtls, hours, strength, methods.
	Lacks []string
}

// ExplainPerimeters returns, for each perimeter whose border the request crosses, what it makes of it: first those
// that the request leaves, then those that it enters. For reading of one event type and the like, the request is as
// in Cross.
func (s *Set) ExplainPerimeters(q Request) []PerimeterVerdict {
	q.permitted = s.behind(&q).Allowed
	w, ok := s.newWorld(&q, allParts)
	if !ok {
		return nil
	}
	passages, _ := q.passages(w, false, nil)
	var list []PerimeterVerdict
	for i := range passages {
		list = append(list, s.verdicts(&passages[i])...)
	}
	return list
}

// ExplainDelivery is ExplainPerimeters for the question of CanDeliver.
func (s *Set) ExplainDelivery(ns ident.Namespace, t ident.EventType, f ident.FunctionName) []PerimeterVerdict {
	p := delivery(ns, t, f)
	return s.verdicts(&p)
}

func (s *Set) verdicts(p *passage) []PerimeterVerdict {
	from, to := s.around(&p.from, nil), s.around(&p.to, nil)
	ways := s.bridgesTo(&p.to, nil)
	var list []PerimeterVerdict
	for _, b := range from {
		if !slices.Contains(to, b) {
			list = append(list, verdict(p, b, ways, false))
		}
	}
	for _, b := range to {
		if !slices.Contains(from, b) {
			list = append(list, verdict(p, b, ways, true))
		}
	}
	return list
}

func verdict(p *passage, b *border, ways []*bridge, inward bool) PerimeterVerdict {
	out := PerimeterVerdict{ID: b.id, Mode: b.info.Mode, Inward: inward, To: p.to.in("")}
	var t toll
	t.cross(p, b, ways, inward)
	out.Denied = len(t.denied)+len(t.dryRun) > 0
	if way := t.way(p, b, ways); way != nil {
		out.Bridge = way.id
	} else {
		ns := b.info.Namespace
		out.Needed = &Bridge{From: []string{p.from.in(ns)}, To: []string{p.to.in(ns)}, Actions: []Action{p.action}}
	}
	for _, way := range ways {
		if way.border == b {
			out.Bridges = append(out.Bridges, way.explain(p))
		}
	}
	if inward && p.request != nil {
		for _, l := range b.levels {
			lacks := l.lacks(p.request, false, nil)
			out.Levels = append(out.Levels, LevelVerdict{Name: l.info.Name, Holds: len(lacks) == 0, Lacks: lacks})
		}
	}
	return out
}

func (b *bridge) explain(p *passage) BridgeVerdict {
	out := BridgeVerdict{ID: b.id, From: b.begins(p), Action: b.allows(p.action)}
	if b.when != nil {
		out.Condition = &Condition{Text: b.info.When}
		out.Condition.Holds, out.Condition.Error = b.when.check(p)
	}
	return out
}
