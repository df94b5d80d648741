package policy

import (
	"maps"
	"slices"
	"strings"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// Config is what a Set is made of.
type Config struct {
	Files      []File
	Perimeters []PerimeterFile
}

// NewWith returns the built-in policies and those of the files, within the perimeters. The error is a problem that
// names every fault of every file of policies, or else of perimeters.
func NewWith(cfg Config) (*Set, error) {
	s, err := New(cfg.Files...)
	if err != nil || len(cfg.Perimeters) == 0 {
		return s, err
	}
	byNamespace := map[ident.Namespace][]PerimeterFile{}
	for _, f := range cfg.Perimeters {
		byNamespace[f.Namespace] = append(byNamespace[f.Namespace], f)
	}
	for _, ns := range slices.Sorted(maps.Keys(byNamespace)) {
		if s, err = s.WithPerimeters(ns, byNamespace[ns]...); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// WithPerimeters returns the set with the perimeters of a namespace, or with "" those of the server, replaced by those
// of the files, all of which MUST be of it; without files it has none. What is unchanged is shared.
func (s *Set) WithPerimeters(ns ident.Namespace, files ...PerimeterFile) (*Set, error) {
	if _, err := ident.ParseNamespace(string(ns)); err != nil && ns != "" {
		return nil, problem.New(problem.Invalid, codeInvalid, "perimeters are of no namespace: %v", err)
	}
	if len(files) > MaxFiles {
		return nil, problem.New(problem.Invalid, codeInvalid, "there are more than %d files of perimeters for one namespace", MaxFiles)
	}
	list, err := compilePerimeters(s.schema, ns, files)
	if err != nil {
		return nil, err
	}
	next := *s
	next.borders = maps.Clone(s.borders)
	delete(next.borders, ns)
	if len(list) > 0 {
		if next.borders == nil {
			next.borders = map[ident.Namespace]*frontier{}
		}
		next.borders[ns] = newFrontier(list)
	}
	return &next, nil
}

// compilePerimeters compiles the perimeters of the files of one namespace, or of the server.
func compilePerimeters(known *vocabulary, ns ident.Namespace, files []PerimeterFile) ([]*border, error) {
	var list []*border
	var faults []problem.Fault
	where := map[string]string{}
	for _, f := range files {
		if f.Namespace != ns {
			return nil, problem.New(problem.Invalid, codeInvalid, "%s is not of the namespace %q", f.Name, ns)
		}
		c := &checker{known: known, ns: ns}
		compiled := c.file(f)
		for _, fault := range c.faults {
			faults = append(faults, problem.Fault{File: f.Name, Detail: strings.Join(fault.Path, ".") + ": " + fault.Detail})
		}
		for _, b := range compiled {
			if first, taken := where[b.id]; taken {
				faults = append(faults, problem.Fault{File: f.Name, Line: b.info.Line, Detail: "there is a " + b.id + " in " + first + " already"})
			}
			where[b.id] = f.Name
		}
		list = append(list, compiled...)
		if len(list) > MaxPerimeters {
			return nil, problem.New(problem.Invalid, codeInvalid, "there are more than %d perimeters for one namespace", MaxPerimeters)
		}
		if len(faults) > maxFaults {
			faults = faults[:maxFaults]
			break
		}
	}
	if len(faults) > 0 {
		return nil, problem.New(problem.Invalid, codeInvalid, "the perimeters have faults").WithFaults(faults...)
	}
	return list, nil
}

// frontier is the perimeters of a namespace, or of the server, by what is inside, and their bridges by where they lead.
type frontier struct {
	all     []*border
	members patterns // of all, by their place
	ways    []*bridge
	leads   patterns // of ways, by their place
	// reads are the parts of the context that the conditions of the bridges of an action read.
	reads map[Action]ContextPart
}

func newFrontier(list []*border) *frontier {
	slices.SortFunc(list, func(a, b *border) int { return strings.Compare(a.id, b.id) })
	f := &frontier{all: list, members: patterns{}, leads: patterns{}, reads: map[Action]ContextPart{}}
	for i, b := range list {
		for _, m := range b.info.members() {
			for _, name := range m.names {
				if p, err := memberPattern(m.kind, b.info.Namespace, name); err == nil { // the checker took it
					f.members.add(&p, i)
				}
			}
		}
		for _, way := range b.bridges {
			for j := range way.to {
				f.leads.add(&way.to[j], len(f.ways))
			}
			f.ways = append(f.ways, way)
			for _, a := range way.info.Actions {
				f.reads[a] |= way.reads()
			}
		}
	}
	return f
}

// around appends the perimeters that an end is inside of, each once: those of the server, then those of the
// namespace, both in the order of their ids.
func (s *Set) around(e *end, list []*border) []*border {
	if memberKindOf(e.kind) == nil {
		return list
	}
	list = s.borders[""].around(e, list)
	if e.ns != "" {
		list = s.borders[e.ns].around(e, list)
	}
	return list
}

func (f *frontier) around(e *end, list []*border) []*border {
	if f == nil {
		return list
	}
	var room [inline]int32
	for _, i := range f.members.find(e, room[:0]) {
		list = append(list, f.all[i])
	}
	return list
}

// bridgesTo appends the bridges that lead to an end, each once, those of one perimeter in the order of their ids. Those
// of a namespace lead to what is in it, for no other name can stand there.
func (s *Set) bridgesTo(e *end, list []*bridge) []*bridge {
	list = s.borders[""].bridgesTo(e, list)
	if e.ns != "" {
		list = s.borders[e.ns].bridgesTo(e, list)
	}
	return list
}

func (f *frontier) bridgesTo(e *end, list []*bridge) []*bridge {
	if f == nil {
		return list
	}
	var room [inline]int32
	for _, i := range f.leads.find(e, room[:0]) {
		list = append(list, f.ways[i])
	}
	return list
}

// conditionReads returns the parts of the context that the conditions of some bridge for the action read: more than
// perimeterReads, and sooner found.
func (s *Set) conditionReads(a Action, r *Resource) (parts ContextPart) {
	if f := s.borders[""]; f != nil {
		parts = f.reads[a]
	}
	if f := s.borders[r.Namespace]; f != nil {
		parts |= f.reads[a]
	}
	return parts
}

// perimeterReads returns the parts of the context that perimeters may read for the action on the resource.
func (s *Set) perimeterReads(a Action, r *Resource) (parts ContextPart) {
	act, ok := borderActionOf(a)
	if !ok {
		return 0
	}
	var ends [fewEnds]end
	to, _ := r.ends(act, ends[:0])
	for i := range to {
		var room [inline]*border
		for _, b := range s.around(&to[i], room[:0]) {
			parts |= b.levelReads
		}
		var ways [inline]*bridge
		for _, b := range s.bridgesTo(&to[i], ways[:0]) {
			if b.allows(a) {
				parts |= b.reads()
			}
		}
	}
	return parts
}

// fewEnds is how many things a grant reaches without an allocation.
const fewEnds = 4

// ends appends what an action on the resource is done to. That is one thing, but for a grant, which may reach several or, as one that reads
// a secret and is asked about that apart, none.
func (r *Resource) ends(act borderAction, list []end) ([]end, bool) {
	switch {
	case r.Kind == KindGrant && act.kind == KindGrant:
		return r.reached(list), true
	case r.Kind == act.kind:
		return append(list, end{kind: r.Kind, ns: r.Namespace, name: r.Name}), true
	case r.Kind == KindNamespace && !act.byFunctions:
		return append(list, end{kind: act.kind, ns: r.Namespace, whole: true}), true
	}
	return list, false
}

// end returns the principal as the end of an action.
func (p *Principal) end() end {
	_, name, _ := strings.Cut(string(p.ID), ":")
	e := end{kind: p.Kind, name: name}
	if p.Kind == KindFunction {
		e.ns = p.Namespace
		if ns, rest, found := strings.Cut(name, "/"); found {
			e.ns, e.name = ident.Namespace(ns), rest
		}
	}
	return e
}
