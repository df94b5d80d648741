package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// maxReach bounds one text of Reaches, in bytes: a query may be long.
const maxReach = 300

// Reaches returns what the grant opens, one text for each single thing that is gained or lost as a whole: the permission diff compares
// them. It names secrets and never holds one.
func (g Grant) Reaches() []string {
	var out []string
	switch {
	case g.HTTP != nil:
		out = g.HTTP.reaches()
	case g.SQL != nil:
		out = g.SQL.reaches()
	case g.KV != nil:
		out = g.KV.reaches()
	case g.Secret != nil:
		out = g.Secret.reaches()
	case g.Invoke != nil:
		out = []string{"invoke function " + string(g.Invoke.Function)}
	case g.Identity != nil:
		out = []string{"identity for " + g.Identity.Audience}
	case g.Kind() == KindPublish:
		for _, t := range g.Publish {
			out = append(out, "publish "+string(t))
		}
	default:
		// Whatever is said of it: a change of any of it is a gain and a loss.
		out = []string{g.Kind() + " " + described(g.Blob)}
	}
	for i := range out {
		if len(out[i]) > maxReach {
			// The digest tells texts apart that differ only in what is left out.
			sum := sha256.Sum256([]byte(out[i]))
			out[i] = strings.ToValidUTF8(out[i][:maxReach], "") + "… sha256:" + hex.EncodeToString(sum[:6])
		}
	}
	return out
}

// Reveals reports whether a function gets the value of a secret by the grant.
func (g Grant) Reveals() bool { return g.Secret != nil }

// described returns all that is known of a part of a grant; nothing of nil.
func described[T any](part *T) string {
	if part == nil {
		return ""
	}
	text, err := json.Marshal(part, json.Deterministic(true))
	if err != nil {
		return fmt.Sprintf("%+v", *part) // it has something that JSON has no form for, such as a duration
	}
	return string(text)
}

func (g *HTTPGrant) reaches() []string {
	var out []string
	for _, m := range g.Methods {
		out = append(out, m+" "+g.URL)
	}
	for _, q := range g.AllowQuery {
		out = append(out, "query parameter "+q)
	}
	for _, h := range g.AllowHeaders {
		out = append(out, "header "+h)
	}
	for _, p := range g.Private {
		out = append(out, "addresses "+p.String())
	}
	if g.Redirects > 0 {
		out = append(out, fmt.Sprintf("%d redirects within the grant", g.Redirects))
	}
	if g.Proxy != "" {
		out = append(out, "by way of the proxy "+g.Proxy)
	}
	if auth := described(&g.Auth); auth != described(&HTTPAuth{}) {
		out = append(out, "credential "+auth)
	}
	return out
}

func (g *SQLGrant) reaches() []string {
	where := "sqlite:" + g.SQLite
	if g.Secret != "" {
		where = "secret:" + g.Secret
	}
	out := []string{"database " + where}
	for _, name := range slices.Sorted(maps.Keys(g.Queries)) {
		mode := " (read): "
		if g.Queries[name].Write {
			mode = " (write): "
		}
		out = append(out, name+mode+g.Queries[name].Text)
	}
	for _, s := range g.Setup {
		out = append(out, "setup: "+s)
	}
	if g.Private {
		out = append(out, "private addresses")
	}
	return out
}

func (g *KVGrant) reaches() []string {
	out := []string{"read " + g.Bucket + "/" + g.Prefix + "*"}
	if !g.ReadOnly {
		out = append(out, "write "+g.Bucket+"/"+g.Prefix+"*")
	}
	return out
}
