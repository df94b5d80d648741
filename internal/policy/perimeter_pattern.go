package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/internal/ident"
)

// kindGroup is the kind of a pattern that names the group of a principal; nothing else is of it.
const kindGroup Kind = "Group"

// end is one end of what may cross a border.
type end struct {
	kind Kind
	ns   ident.Namespace // of an event type or function
	name string
	// whole says that it is everything of its kind in the namespace.
	whole bool
}

// in returns the end as bridges of a perimeter of the namespace name it, or with "" those of the server.
func (e *end) in(ns ident.Namespace) string {
	name := e.name
	if e.whole {
		name = "*"
	}
	if (e.kind == KindEventType || e.kind == KindFunction) && (ns == "" || ns != e.ns) {
		name = string(e.ns) + "/" + name
	}
	if e.kind == KindEventType {
		return "event_type:" + name
	}
	return strings.ToLower(string(e.kind)) + ":" + name
}

// pattern is a name, or the beginning of names, of a kind.
type pattern struct {
	kind   Kind
	ns     ident.Namespace
	text   string
	prefix bool
}

// admits reports whether an end is in the pattern.
func (p *pattern) admits(e *end) bool {
	if p.kind != e.kind || p.ns != e.ns {
		return false
	}
	if e.whole {
		return p.prefix && p.text == ""
	}
	return p.fits(e.name)
}

func (p *pattern) fits(name string) bool {
	if p.prefix {
		return strings.HasPrefix(name, p.text)
	}
	return p.text == name
}

// memberPattern parses the name of an event type or function in a perimeter of a namespace, or of the server.
func memberPattern(kind Kind, ns ident.Namespace, s string) (pattern, error) {
	name := s
	if ns == "" {
		first, rest, found := strings.Cut(s, "/")
		if !found {
			return pattern{}, fmt.Errorf("want the namespace and a slash before the name, %q: this perimeter is of the whole server", clip("default/"+s))
		}
		var err error
		if ns, err = ident.ParseNamespace(first); err != nil {
			return pattern{}, err
		}
		name = rest
	}
	p := pattern{kind: kind, ns: ns}
	if p.text, p.prefix = strings.CutSuffix(name, "*"); strings.Contains(p.text, "*") {
		return pattern{}, errors.New(`a "*" stands at the end only, for whatever follows`)
	}
	whole := p.text
	if p.prefix {
		whole += "x" // some name that begins so
	}
	var err error
	if kind == KindEventType {
		_, err = ident.ParseEventType(whole)
	} else {
		_, err = ident.ParseFunctionName(whole)
	}
	return p, err
}

// endWords are the words for the kinds of ends in bridges.
var endWords = []struct {
	word string
	kind Kind
}{
	{"user", KindUser}, {"service", KindService}, {"token", KindToken}, {"group", kindGroup}, {"function", KindFunction},
	{"event_type", KindEventType},
}

// maxEndName bounds the name of a principal or group in a bridge, in bytes.
const maxEndName = 1000

// endPattern parses one end of a bridge, which must be of one of the kinds.
func endPattern(ns ident.Namespace, s string, kinds ...Kind) (pattern, error) {
	word, name, found := strings.Cut(s, ":")
	var words []string
	var kind Kind
	for _, w := range endWords {
		if slices.Contains(kinds, w.kind) {
			words = append(words, w.word)
			if w.word == word {
				kind = w.kind
			}
		}
	}
	if kind == "" || !found {
		for i, w := range words {
			words[i] = `"` + w + `:…"`
		}
		return pattern{}, fmt.Errorf("want %s here%s", joinOr(words), meant(word+":…", func(yield func(string) bool) {
			for _, w := range words {
				if !yield(strings.Trim(w, `"`)) {
					return
				}
			}
		}))
	}
	if kind == KindFunction || kind == KindEventType {
		return memberPattern(kind, ns, name)
	}
	p := pattern{kind: kind}
	p.text, p.prefix = strings.CutSuffix(name, "*")
	switch {
	case strings.Contains(p.text, "*"):
		return pattern{}, errors.New(`a "*" stands at the end only, for whatever follows`)
	case name == "":
		return pattern{}, fmt.Errorf("want a name after %q, or %q for all", word+":", word+":*")
	case len(name) > maxEndName:
		return pattern{}, fmt.Errorf("the name is %d bytes long, at most %d are allowed", len(name), maxEndName)
	}
	return p, nil
}

// patterns finds what has a pattern that admits an end, by a number. One look-up costs as many comparisons as there are
// lengths of beginnings, and not as many as there are patterns.
type patterns struct {
	types, functions map[ident.Namespace]*patternNames
}

type patternNames struct {
	exact, prefix map[string][]int32
	lengths       []int // of the prefixes
}

func (x *patterns) add(p *pattern, owner int) {
	byNamespace := &x.types
	if p.kind == KindFunction {
		byNamespace = &x.functions
	}
	if *byNamespace == nil {
		*byNamespace = map[ident.Namespace]*patternNames{}
	}
	names := (*byNamespace)[p.ns]
	if names == nil {
		names = &patternNames{exact: map[string][]int32{}, prefix: map[string][]int32{}}
		(*byNamespace)[p.ns] = names
	}
	if !p.prefix {
		names.exact[p.text] = append(names.exact[p.text], int32(owner))
		return
	}
	names.prefix[p.text] = append(names.prefix[p.text], int32(owner))
	if !slices.Contains(names.lengths, len(p.text)) {
		names.lengths = append(names.lengths, len(p.text))
	}
}

// find appends the owners of the patterns that admit the end, each once, in their order.
func (x *patterns) find(e *end, list []int32) []int32 {
	byNamespace := x.types
	if e.kind == KindFunction {
		byNamespace = x.functions
	}
	names := byNamespace[e.ns]
	if names == nil {
		return list
	}
	if e.whole {
		list = append(list, names.prefix[""]...)
	} else {
		list = append(list, names.exact[e.name]...)
		for _, n := range names.lengths {
			if n <= len(e.name) {
				list = append(list, names.prefix[e.name[:n]]...)
			}
		}
	}
	if len(list) > 1 {
		slices.Sort(list)
		list = slices.Compact(list)
	}
	return list
}
