package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sallyport/internal/ident"
)

// kindGroup is the kind of a pattern that names the group of a principal; nothing else is of it.
const kindGroup Kind = "Group"

// The kinds of members that are no resources of policies: what grants reach.
const (
	kindHost     Kind = "Host"
	kindAudience Kind = "Audience"
	kindKV       Kind = "KV"
	kindSQLite   Kind = "SQLite"
	kindBlob     Kind = "Blob"
)

// memberKind is a kind of members: the key that they stand at in a perimeter, the word before one in a bridge, and what people
// call them.
type memberKind struct {
	kind             Kind
	key, word, nouns string
	// reached says that grants reach it, and global that it is in no namespace.
	reached, global bool
	parse           func(string) error
}

// memberKinds are all of them.
var memberKinds = [...]memberKind{
	{kind: KindEventType, key: "event_types", word: "event_type", nouns: "event types", parse: parseAs(ident.ParseEventType)},
	{kind: KindFunction, key: "functions", word: "function", nouns: "functions", parse: parseAs(ident.ParseFunctionName)},
	{kind: KindSecret, key: "secrets", word: "secret", nouns: "secrets", parse: parseAs(ident.ParseSecretName)},
	{kind: kindHost, key: "hosts", word: "host", nouns: "hosts", reached: true, global: true},
	{kind: kindAudience, key: "audiences", word: "audience", nouns: "audiences", reached: true, global: true, parse: parseAudience},
	{kind: kindKV, key: "kv", word: "kv", nouns: "kv buckets", reached: true, parse: parseAs(ident.ParseGrantName)},
	{kind: kindSQLite, key: "sqlite", word: "sqlite", nouns: "sqlite databases", reached: true, parse: parseAs(ident.ParseGrantName)},
	{kind: kindBlob, key: "blob", word: "blob", nouns: "blob buckets", reached: true, parse: parseAs(ident.ParseGrantName)},
}

func parseAs[T any](parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		_, err := parse(s)
		return err
	}
}

// maxAudience bounds an audience as a manifest does, in bytes.
const maxAudience = 255

func parseAudience(s string) error {
	if s == "" || len(s) > maxAudience || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("want an audience of 1 to %d bytes without control characters", maxAudience)
	}
	return nil
}

// memberKindOf returns the kind of members, nil for what is none.
func memberKindOf(k Kind) *memberKind {
	for i := range memberKinds {
		if memberKinds[i].kind == k {
			return &memberKinds[i]
		}
	}
	return nil
}

// kindWords are what people call members of a kind.
func kindWords(k Kind) string { return memberKindOf(k).nouns }

// end is one end of what may cross a border.
type end struct {
	kind Kind
	// ns is the namespace of a member, whose perimeters are asked; of what is in none, that of the function that reaches it.
	ns   ident.Namespace
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
	m := memberKindOf(e.kind)
	switch {
	case m == nil: // a principal
		return strings.ToLower(string(e.kind)) + ":" + name
	case e.kind == kindHost && strings.Contains(name, ":"):
		name = "[" + name + "]" // IPv6
	case !m.global && ns != e.ns:
		name = string(e.ns) + "/" + name
	}
	return m.word + ":" + name
}

// scope is the namespace that patterns for the end are of: of what is in none, "".
func (e *end) scope() ident.Namespace {
	if e.kind == kindHost || e.kind == kindAudience {
		return ""
	}
	return e.ns
}

// reached appends what a grant reaches.
func (r *Resource) reached(list []end) []end {
	for text := range strings.SplitSeq(r.Reaches, "\n") {
		word, name, _ := strings.Cut(text, ":")
		for i := range memberKinds {
			if m := &memberKinds[i]; m.reached && m.word == word {
				list = append(list, end{kind: m.kind, ns: r.Namespace, name: name})
			}
		}
	}
	return list
}

// pattern is a name, or the beginning of names, of a kind; of hosts it may be the end of names.
type pattern struct {
	kind           Kind
	ns             ident.Namespace
	text           string
	prefix, suffix bool
}

// admits reports whether an end is in the pattern.
func (p *pattern) admits(e *end) bool {
	if p.kind != e.kind || p.ns != e.scope() {
		return false
	}
	if e.whole {
		return p.prefix && p.text == ""
	}
	return p.fits(e.name)
}

func (p *pattern) fits(name string) bool {
	switch {
	case p.prefix:
		return strings.HasPrefix(name, p.text)
	case p.suffix:
		return strings.HasSuffix(name, p.text)
	}
	return p.text == name
}

// memberPattern parses the name of a member in a perimeter of a namespace, or of the server.
func memberPattern(kind Kind, ns ident.Namespace, s string) (pattern, error) {
	if kind == kindHost {
		return hostPattern(s)
	}
	m, name := memberKindOf(kind), s
	if m.global {
		ns = ""
	} else if ns == "" {
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
	return p, m.parse(whole)
}

// hostPattern parses a host: a name or an address as it stands in the URL of a grant, "*.example.org" for every name below that
// one, or "*". Another spelling of a host would be in the perimeter and never be met, so it is refused.
func hostPattern(s string) (pattern, error) {
	p := pattern{kind: kindHost}
	name, below := strings.CutPrefix(s, "*.")
	switch {
	case s == "*":
		p.prefix = true
		return p, nil
	case len(s) > maxEndName:
		return p, fmt.Errorf("the host is %d bytes long, at most %d are allowed", len(s), maxEndName)
	case strings.Contains(name, "*"):
		return p, errors.New(`want "*.example.org" for all hosts below example.org, "*" for every host, or a host without "*"`)
	}
	host, err := ident.ParseHost(name)
	if err != nil {
		if near, why := nearHost(name); near != "" {
			return p, fmt.Errorf("%s; did you mean %q?", why, s[:len(s)-len(name)]+near)
		}
		return p, err
	}
	if p.text = host; !below {
		return p, nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return p, fmt.Errorf("no host is below the address %q", host)
	}
	p.text, p.suffix = "."+host, true
	return p, nil
}

// nearHost returns the host that somebody may have meant who wrote it otherwise, and what is wrong with how it is written.
func nearHost(s string) (host, why string) {
	good := func(host string) bool {
		_, err := ident.ParseHost(host)
		return err == nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Is6() && a.Zone() == "" {
		if a.Is4In6() {
			return a.Unmap().String(), "an IPv4 address is written as such"
		}
		return "[" + a.String() + "]", "an IPv6 address stands in brackets, in its shortest form"
	}
	if inner, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && inner.Is6() && inner.Zone() == "" && !inner.Is4In6() {
		return "[" + inner.String() + "]", "an IPv6 address stands in brackets, in its shortest form"
	}
	if _, rest, found := strings.Cut(s, "://"); found {
		rest, _, _ = strings.Cut(rest, "/")
		if good(rest) {
			return rest, "want the host alone, without scheme and path"
		}
		s = rest
	}
	if i := strings.LastIndexByte(s, ':'); i >= 0 && good(s[:i]) {
		return s[:i], "a host is inside with all of its ports"
	}
	if lower := strings.TrimSuffix(strings.ToLower(s), "."); lower != s && good(lower) {
		return lower, "a host is written in lower case, without a dot at its end"
	}
	return "", ""
}

// endWord is the word for a kind of ends in bridges.
type endWord struct {
	word string
	kind Kind
}

// principalWords are those of principals.
var principalWords = [...]endWord{{"user", KindUser}, {"service", KindService}, {"token", KindToken}, {"group", kindGroup}}

// endWords returns all of them.
func endWords() []endWord {
	words := principalWords[:]
	for i := range memberKinds {
		words = append(words[:len(words):len(words)], endWord{memberKinds[i].word, memberKinds[i].kind})
	}
	return words
}

// maxEndName bounds the name of a principal or group in a bridge, in bytes.
const maxEndName = 1000

// endPattern parses one end of a bridge, which must be of one of the kinds.
func endPattern(ns ident.Namespace, s string, kinds ...Kind) (pattern, error) {
	word, name, found := strings.Cut(s, ":")
	var words []string
	var kind Kind
	for _, w := range endWords() {
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
	if memberKindOf(kind) != nil {
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
// lengths of beginnings and ends, and not as many as there are patterns.
type patterns map[patternScope]*patternNames

// patternScope is what patterns are of that are looked up together.
type patternScope struct {
	kind Kind
	ns   ident.Namespace
}

type patternNames struct {
	exact, prefix, suffix map[string][]int32
	prefixes, suffixes    []int // their lengths
}

func (x patterns) add(p *pattern, owner int) {
	scope := patternScope{p.kind, p.ns}
	names := x[scope]
	if names == nil {
		names = &patternNames{exact: map[string][]int32{}, prefix: map[string][]int32{}, suffix: map[string][]int32{}}
		x[scope] = names
	}
	owners, lengths := names.exact, (*[]int)(nil)
	switch {
	case p.prefix:
		owners, lengths = names.prefix, &names.prefixes
	case p.suffix:
		owners, lengths = names.suffix, &names.suffixes
	}
	owners[p.text] = append(owners[p.text], int32(owner))
	if lengths != nil && !slices.Contains(*lengths, len(p.text)) {
		*lengths = append(*lengths, len(p.text))
	}
}

// find appends the owners of the patterns that admit the end, each once, in their order.
func (x patterns) find(e *end, list []int32) []int32 {
	names := x[patternScope{e.kind, e.scope()}]
	if names == nil {
		return list
	}
	if e.whole {
		list = append(list, names.prefix[""]...)
	} else {
		list = append(list, names.exact[e.name]...)
		for _, n := range names.prefixes {
			if n <= len(e.name) {
				list = append(list, names.prefix[e.name[:n]]...)
			}
		}
		for _, n := range names.suffixes {
			if n <= len(e.name) {
				list = append(list, names.suffix[e.name[len(e.name)-n:]]...)
			}
		}
	}
	if len(list) > 1 {
		slices.Sort(list)
		list = slices.Compact(list)
	}
	return list
}
