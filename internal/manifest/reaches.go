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
const maxReach = 2000

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
	case g.Blob != nil:
		out = g.Blob.reaches()
	case g.Secret != nil:
		out = g.Secret.reaches()
	case g.Invoke != nil:
		out = []string{"invoke function " + string(g.Invoke.Function)}
	case g.Identity != nil:
		out = []string{"identity for " + g.Identity.Audience}
	default:
		for _, t := range g.Publish {
			out = append(out, "publish "+string(t))
		}
	}
	for i := range out {
		if len(out[i]) > maxReach {
			// The digest tells texts apart that differ only in what is left out.
			sum := sha256.Sum256([]byte(out[i]))
			out[i] = strings.ToValidUTF8(out[i][:maxReach], "") + "… sha256:" + hex.EncodeToString(sum[:])
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
	if g.ProxyResolves {
		out = append(out, "the proxy resolves names")
	}
	for _, name := range slices.Sorted(maps.Keys(g.Query)) {
		out = append(out, "always query "+name+"="+g.Query[name])
	}
	for _, name := range slices.Sorted(maps.Keys(g.Headers)) {
		out = append(out, "always header "+name+": "+g.Headers[name])
	}
	if g.CA != "" {
		out = append(out, "trusts "+trusted(g.CA))
	}
	return append(out, g.Auth.reaches()...)
}

// trusted names CAs: the secret that has them, or a digest of their certificates.
func trusted(ca string) string {
	if strings.HasPrefix(ca, "secret:") {
		return ca
	}
	sum := sha256.Sum256([]byte(ca))
	return "certificates of sha256:" + hex.EncodeToString(sum[:])
}

func (a *HTTPAuth) reaches() []string {
	var out []string
	if a.Bearer != "" {
		out = append(out, "credential bearer "+a.Bearer)
	}
	for _, c := range []struct{ kind, text string }{
		{"basic", described(a.Basic)}, {"header", described(a.Header)}, {"query", described(a.Query)}, {"hmac", described(a.HMAC)},
		{"aws", described(a.AWS)}, {"oauth2", described(a.OAuth2)}, {"mtls", described(a.MTLS)},
	} {
		if c.text != "" {
			out = append(out, "credential "+c.kind+" "+c.text)
		}
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
	if g.CA != "" {
		out = append(out, "trusts secret:"+g.CA)
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
