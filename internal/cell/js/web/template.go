package web

import (
	"slices"
	"strings"
)

// Template is the URLs that an http grant covers, to find the grant that a script means. It decides nothing.
type Template struct {
	methods  []string
	origin   string
	segments []segment
}

// segment is one of a template's path: before{name}after, which has a value, or before alone.
type segment struct {
	before, after string
	value         bool
	rest          bool // the value is all that follows
}

// ParseTemplate reads what the host writes of a grant: "GET POST https://host:443/a/{b}/pre-{c}.json/{d...}".
func ParseTemplate(about string) Template {
	methods := strings.Fields(about)
	if len(methods) == 0 {
		return Template{}
	}
	url := methods[len(methods)-1]
	scheme, rest, _ := strings.Cut(url, "://")
	authority, path, _ := strings.Cut(rest, "/")
	port, _ := defaultPort(scheme)
	t := Template{methods: methods[:len(methods)-1], origin: scheme + "://" + strings.TrimSuffix(authority, ":"+port)}
	for part := range strings.SplitSeq(path, "/") {
		before, value, found := strings.Cut(part, "{")
		name, after, _ := strings.Cut(value, "}")
		t.segments = append(t.segments, segment{before: before, after: after, value: found, rest: strings.HasSuffix(name, "...")})
	}
	return t
}

// Covers reports whether a URL is one of the template's, and the method one of its methods.
func (t Template) Covers(method, href string, cuts Cuts) bool {
	const pathStart, pathEnd = 8, 9
	if !slices.Contains(t.methods, method) || href[:cuts[pathStart]] != t.origin {
		return false
	}
	path, ok := strings.CutPrefix(href[cuts[pathStart]:cuts[pathEnd]], "/")
	if !ok {
		return false
	}
	more := true
	for _, s := range t.segments {
		if !more {
			return false
		}
		if s.rest {
			return path != "" && path[0] != '/'
		}
		var part string
		part, path, more = strings.Cut(path, "/")
		if !s.matches(part) {
			return false
		}
	}
	return !more
}

func (s segment) matches(part string) bool {
	if !s.value {
		return part == s.before
	}
	return len(part) > len(s.before)+len(s.after) && strings.HasPrefix(part, s.before) && strings.HasSuffix(part, s.after)
}
