package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// PerimeterFault is what is wrong with a perimeter or level, and where: for manifest, which knows the text.
type PerimeterFault struct {
	// Path is the keys that lead to it, such as "perimeters", "payments", "bridges", "audit", "from".
	Path []string
	// Item is the place in the list there, or -1 for the whole of it.
	Item int
	// Missing says that there is nothing at the path, and must be.
	Missing bool
	// In is the place within the text there; its line 0 is the whole text.
	In     problem.Fault
	Detail string
}

// CheckPerimeters returns what is wrong with the perimeters of a file, as NewWith finds it.
func CheckPerimeters(f PerimeterFile) ([]PerimeterFault, error) {
	known, err := readSchema()
	if err != nil {
		return nil, err
	}
	c := &checker{known: known, ns: f.Namespace}
	c.file(f)
	return c.faults, nil
}

// checker compiles the perimeters of a file, and collects what is wrong with them.
type checker struct {
	known  *vocabulary
	ns     ident.Namespace
	levels map[string]*level
	faults []PerimeterFault
}

// field is where the checker is.
type field struct {
	c    *checker
	path []string
}

func (f field) key(name string) field { return field{f.c, append(slices.Clip(f.path), name)} }

func (f field) note(fault PerimeterFault) {
	fault.Path = f.path
	if len(f.c.faults) <= maxFaults {
		f.c.faults = append(f.c.faults, fault)
	}
}

func (f field) fault(format string, args ...any) { f.item(-1, format, args...) }

func (f field) item(i int, format string, args ...any) {
	f.note(PerimeterFault{Item: i, Detail: fmt.Sprintf(format, args...)})
}

func (f field) missing(format string, args ...any) {
	f.note(PerimeterFault{Item: -1, Missing: true, Detail: fmt.Sprintf(format, args...)})
}

// most checks the length of a list.
func (f field) most(n, most int) bool {
	if n > most {
		f.fault("%d of them, at most %d are allowed", n, most)
	}
	return n <= most
}

// name checks a name that the user chose.
func (f field) name(s string) bool {
	_, err := ident.ParseGrantName(s)
	if err != nil {
		f.fault("want a name of 1 to %d lower-case letters, digits and inner hyphens that begins with a letter", ident.MaxNameLength)
	}
	return err == nil
}

// file compiles a file. Each name is once in it.
func (c *checker) file(f PerimeterFile) []*border {
	root := field{c: c}
	c.levels = map[string]*level{}
	if root.key("levels").most(len(f.Levels), MaxLevels) {
		for _, l := range f.Levels {
			at := root.key("levels").key(l.Name)
			if _, twice := c.levels[l.Name]; twice {
				at.fault("there are two levels of this name")
			}
			c.levels[l.Name] = at.level(l)
		}
	}
	if !root.key("perimeters").most(len(f.Perimeters), MaxPerimeters) {
		return nil
	}
	if len(f.Perimeters) == 0 {
		root.key("perimeters").missing("the file has no perimeters; add one, such as [perimeters.payments]")
	}
	var list []*border
	names := map[string]bool{}
	for _, p := range f.Perimeters {
		at := root.key("perimeters").key(p.Name)
		if names[p.Name] {
			at.fault("there are two perimeters of this name")
		}
		names[p.Name] = true
		p.Namespace = c.ns
		if p.File == "" {
			p.File = f.Name
		}
		list = append(list, at.perimeter(p))
	}
	return list
}

func (f field) level(l Level) *level {
	f.name(l.Name)
	l.Strength, l.Methods = slices.Clone(l.Strength), slices.Clone(l.Methods) // they are asked later
	out := &level{info: l}
	if f.key("ip").most(len(l.IP), MaxLevelValues) {
		for i, s := range l.IP {
			p, err := parseRange(s)
			if err != nil {
				f.key("ip").item(i, "%v", err)
			}
			out.ip = append(out.ip, p)
		}
	}
	if f.key("hours").most(len(l.Hours), MaxLevelValues) {
		for i, s := range l.Hours {
			w, err := parseWindow(s)
			if err != nil {
				f.key("hours").item(i, "%v", err)
			}
			out.hours = append(out.hours, w)
		}
	}
	for _, list := range []struct {
		key    string
		values []string
	}{{"strength", l.Strength}, {"methods", l.Methods}} {
		if !f.key(list.key).most(len(list.values), MaxLevelValues) {
			continue
		}
		for i, s := range list.values {
			if s == "" || len(s) > maxEndName {
				f.key(list.key).item(i, "want a value of 1 to %d bytes", maxEndName)
			}
		}
	}
	if len(l.IP)+len(l.Hours)+len(l.Strength)+len(l.Methods) == 0 && !l.MutualTLS {
		f.missing("the level asks for nothing, and would let in everybody; give it ip, mtls, hours, strength or methods")
	}
	for part, asked := range map[ContextPart]bool{PartIP: len(l.IP) > 0, PartTransport: l.MutualTLS, PartNow: len(l.Hours) > 0} {
		if asked {
			out.reads |= part
		}
	}
	return out
}

func (f field) perimeter(p Perimeter) *border {
	f.name(p.Name)
	b := &border{id: PerimeterID(p.Namespace, p.Name), info: p}
	if n := len(p.Description); n > MaxDescription {
		f.key("description").fault("%d bytes long, at most %d are allowed", n, MaxDescription)
	}
	if p.Mode > DryRun {
		f.key("mode").fault("there is no such mode")
	}
	inside := 0
	for _, m := range b.info.members() {
		inside += len(m.names)
		f.key(m.key).members(m.kind, p.Namespace, m.names)
	}
	if inside == 0 {
		f.missing("the perimeter has nothing inside; give it event_types, functions, secrets or hosts")
	}
	b.levels, b.levelReads = f.key("require").required(p.Require)
	if !f.key("bridges").most(len(p.Bridges), MaxBridges) {
		return b
	}
	names := map[string]bool{}
	for _, info := range p.Bridges {
		at := f.key("bridges").key(info.Name)
		if names[info.Name] {
			at.fault("there are two bridges of this name")
		}
		names[info.Name] = true
		b.bridges = append(b.bridges, at.bridge(b, info))
	}
	slices.SortFunc(b.bridges, func(x, y *bridge) int { return strings.Compare(x.id, y.id) })
	return b
}

// members checks the members of one kind.
func (f field) members(kind Kind, ns ident.Namespace, names []string) {
	if !f.most(len(names), MaxMembers) {
		return
	}
	first := map[pattern]bool{}
	for i, s := range names {
		p, err := memberPattern(kind, ns, s)
		switch {
		case err != nil:
			f.item(i, "%v", err)
		case first[p]:
			f.item(i, "%q stands here twice", clip(s))
		}
		first[p] = true
	}
}

// membersOfKind are the members of a perimeter of one kind, and the key they stand at.
type membersOfKind struct {
	kind  Kind
	key   string
	names []string
}

// members returns those of all kinds, in the order of memberKinds.
func (p *Perimeter) members() (all [len(memberKinds)]membersOfKind) {
	lists := [len(memberKinds)][]string{p.EventTypes, p.Functions, p.Secrets, p.Hosts, p.Audiences, p.KV, p.SQLite, p.Blob}
	for i := range all {
		all[i] = membersOfKind{memberKinds[i].kind, memberKinds[i].key, lists[i]}
	}
	return all
}

// required returns the levels that a perimeter demands.
func (f field) required(names []string) (levels []*level, reads ContextPart) {
	if !f.most(len(names), MaxRequired) {
		return nil, 0
	}
	for i, name := range names {
		l := f.c.levels[name]
		if l == nil {
			f.item(i, "there is no level %q in this file%s", clip(name), meant(name, maps.Keys(f.c.levels)))
			continue
		}
		levels = append(levels, l)
		reads |= l.reads
	}
	return levels, reads
}

func (f field) bridge(of *border, info Bridge) *bridge {
	f.name(info.Name)
	info.Actions = slices.Clone(info.Actions) // it is asked when the caller may have changed its own
	b := &bridge{id: bridgeID(of.id, info.Name), info: info, border: of}
	known, before := f.c.known, len(f.c.faults)
	f.actions(info.Actions)
	deliver := b.allows(Deliver)
	sources := []Kind{KindUser, KindService, KindToken, kindGroup, KindFunction}
	if deliver {
		sources = []Kind{KindEventType}
	}
	b.from = f.key("from").ends(f.c.ns, info.From, sources)
	var leads []Kind
	for i := range memberKinds {
		leads = append(leads, memberKinds[i].kind)
	}
	b.to = f.key("to").ends(f.c.ns, info.To, leads)
	if len(f.c.faults) > before {
		return b
	}
	if f.together(b); len(f.c.faults) > before || info.When == "" {
		return b
	}
	if deliver {
		f.key("when").fault("a delivery has no principal and no context to ask about; leave the condition out")
		return b
	}
	r := &reader{schema: known}
	b.when = r.condition(info.When, b.principalKinds(), info.Actions)
	noted := map[problem.Fault]bool{} // what is wrong for one kind of principal often is for the next
	for _, fault := range r.faults {
		if !noted[fault] {
			noted[fault] = true
			f.key("when").note(PerimeterFault{Item: -1, In: inText(info.When, fault), Detail: fault.Detail})
		}
	}
	return b
}

// actions checks the actions of a bridge.
func (f field) actions(list []Action) {
	at := f.key("actions")
	if len(list) == 0 {
		at.missing(`the bridge has no actions; add some, such as actions = ["publish"]`)
	}
	for i, a := range list {
		if _, ok := borderActionOf(a); !ok {
			var words []string
			for _, known := range borderActions {
				words = append(words, string(known.action))
			}
			at.item(i, "no perimeter is about %q; want %s%s", clip(string(a)), joinOr(words), meant(string(a), slices.Values(words)))
		}
		if slices.Contains(list[:i], a) {
			at.item(i, "%q stands here twice", clip(string(a)))
		}
	}
	if len(list) > 1 && slices.Contains(list, Deliver) {
		at.item(slices.Index(list, Deliver), "a delivery comes from an event type, and other actions from a principal; give it a bridge of its own")
	}
}

func (f field) ends(ns ident.Namespace, list []string, kinds []Kind) []pattern {
	if len(list) == 0 {
		f.missing("the bridge lacks an end")
	}
	if !f.most(len(list), MaxEnds) {
		return nil
	}
	var out []pattern
	for i, s := range list {
		p, err := endPattern(ns, s, kinds...)
		if err != nil {
			f.item(i, "%v", err)
		}
		out = append(out, p)
	}
	return out
}

// together checks that the actions of a bridge go with its ends: what can never be used is a mistake.
func (f field) together(b *bridge) {
	for i, p := range b.to {
		if !slices.ContainsFunc(b.info.Actions, func(a Action) bool { act, _ := borderActionOf(a); return act.about(p.kind) }) {
			f.key("to").item(i, "none of the actions is about %s", kindWords(p.kind))
		}
	}
	for i, a := range b.info.Actions {
		act, _ := borderActionOf(a)
		if !slices.ContainsFunc(b.to, func(p pattern) bool { return act.about(p.kind) }) {
			f.key("actions").item(i, "%s is about %s, and the bridge leads to none", a, act.words())
		}
		if act.byFunctions || a == Deliver {
			continue
		}
		for j, p := range b.from {
			if p.kind == KindFunction {
				f.key("from").item(j, "a function cannot %s; give the others a bridge of their own", a)
			}
		}
	}
}

// words are what people call what the action is about.
func (a borderAction) words() string {
	var words []string
	for i := range memberKinds {
		if a.about(memberKinds[i].kind) {
			words = append(words, memberKinds[i].nouns)
		}
	}
	return joinOr(words)
}

// principalKinds are the kinds of principals that a bridge may be asked about.
func (b *bridge) principalKinds() []Kind {
	var kinds []Kind
	for _, p := range b.from {
		switch p.kind {
		case kindGroup:
			kinds = append(kinds, KindToken, KindUser, KindService)
		case KindToken, KindUser, KindService, KindFunction:
			kinds = append(kinds, p.kind)
		case KindEventType, KindSecret, KindNamespace, KindServer, KindGrant:
		}
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}
