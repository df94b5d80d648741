package manifest

import (
	"regexp"
	"slices"
	"strings"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// A fault is shown with the line that it is on, in a terminal, a log of a build and an answer of the server. Where somebody wrote a
// credential into a manifest, which is a fault by itself, that line MUST NOT hold it. So in grants only the texts of keys that are listed here are
// shown: what is new, unknown or misspelt is not.

// shownOfGrant are the keys of a grant whose texts, and those in their tables, are no place for a credential.
var shownOfGrant = []string{
	KindPublish, KindKV, KindBlob, KindInvoke, KindIdentity, "methods", "allow_query", "allow_headers", "private", "limits", "lease", "mode", "size", "object_size",
	"ttl", "prefix", "audience", "queries", "setup", "max_rows", "connections", "redirects", "read_only", "quota", "value_size", "proxy_resolves",
}

// shownOfAuth are those of the table auth and of the tables in it.
var shownOfAuth = []string{
	"user", "name", "prefix", "header", "format", "signed", "algorithm", "encoding", "access_key", "region", "service", "token_url", "client_id", "audience", "client_auth", "scopes",
}

// hideCredentials notes where the texts of grants are that are not shown.
func (d *document) hideCredentials() {
	functions := d.root.members["functions"]
	if functions == nil {
		return
	}
	for _, f := range functions.members {
		grants := f.members["grants"]
		if grants == nil {
			continue
		}
		for _, g := range grants.members {
			d.hideIn(g, func(key string, n *node) bool { return slices.Contains(shownOfGrant, key) || plainly(key, n) })
		}
	}
	slices.SortFunc(d.hidden, func(a, b place) int { return b.offset - a.offset }) // the last one first, as masked wants them
}

// plainly reports whether the value of a key of a grant is what belongs there.
func plainly(key string, n *node) bool {
	switch key {
	case KindHTTP, "proxy":
		return !strings.Contains(n.text, "@") // a user and a password
	case KindSQL:
		if strings.HasPrefix(n.text, "sqlite:") {
			return true
		}
	case "ca":
		if strings.HasPrefix(n.text, "-----BEGIN CERTIFICATE") && !strings.Contains(n.text, "PRIVATE") {
			return true
		}
	}
	return isRef(n)
}

func isRef(n *node) bool {
	_, err := ident.ParseSecretRef(n.text)
	return n.kind == kindText && err == nil
}

// hideIn hides the texts of a table but for those that may be shown.
func (d *document) hideIn(table *node, shown func(key string, n *node) bool) {
	if len(table.members) == 0 {
		d.hideAll(table)
	}
	for key, n := range table.members {
		switch {
		case key == "auth" && len(n.members) > 0:
			d.hideAuth(n)
		case shown(key, n):
		default:
			d.hideIn(n, shown)
		}
	}
}

// hideAuth hides what is not shown of the table auth, whose members are tables but for references.
func (d *document) hideAuth(auth *node) {
	for _, n := range auth.members {
		switch {
		case len(n.members) > 0:
			d.hideIn(n, func(key string, n *node) bool { return slices.Contains(shownOfAuth, key) || isRef(n) })
		case !isRef(n):
			d.hideAll(n)
		}
	}
}

// hideAll hides a text, and those of a list.
func (d *document) hideAll(n *node) {
	if len(n.items) == 0 {
		d.hidden = append(d.hidden, n.value)
		return
	}
	for _, item := range n.items {
		d.hideAll(item)
	}
}

// credentialLine is a line that may hold a credential, when the whole text cannot be read: a value without quotes, for one.
var credentialLine = regexp.MustCompile(`(?i)(auth|bearer|passw|secret|token|key|header|query|credential|certificate|sql|http|ca|proxy)[^=]*=|^\s*[a-z0-9+/_-]{24,}`)

// masked takes what is not shown out of the line of a fault, which begins at a byte of the text. Each character becomes a star, so that columns stay
// what they are in the file.
func (d *document) masked(f problem.Fault, start int) problem.Fault {
	if d.unread && credentialLine.MatchString(f.Source) {
		key, value, _ := strings.Cut(f.Source, "=")
		if value == "" {
			key, value = "", f.Source
		} else {
			key += "="
		}
		f.Source = key + stars(value)
		return f
	}
	for _, p := range d.hidden {
		if from, to := max(p.offset-start, 0), min(p.offset+p.length-start, len(f.Source)); from < to {
			f.Source = f.Source[:from] + stars(f.Source[from:to]) + f.Source[to:]
		}
	}
	return f
}

// stars has a star for each character but white space and quotes.
func stars(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\"'", r) {
			return r
		}
		return '*'
	}, s)
}
