package manifest

import (
	"slices"
	"strings"

	"sallyport/internal/manifest/urltemplate"
)

// unknownTarget is a name that nothing has: what a perimeter is asked about when it is not known what a grant reaches. It is
// inside of none, so that nothing inside of one reaches it.
const unknownTarget = "?"

// Targets returns what the grant reaches by itself when it is used, as bridges of perimeters name it and one a line: every host that it
// connects to, also to get a token and by way of a proxy, because what is behind a proxy is the proxy's word; the audience of its
// identity tokens; the bucket or database. What else it does is asked about apart, as the use of a secret, the call of a function
// or an event, and so is a PostgreSQL server, whose address is a secret.
func (g Grant) Targets() string {
	var out []string
	switch {
	case g.HTTP != nil:
		out = g.HTTP.hosts()
	case g.SQL != nil:
		if g.SQL.SQLite != "" {
			out = []string{"sqlite:" + g.SQL.SQLite}
		}
	case g.KV != nil:
		out = []string{"kv:" + g.KV.Bucket}
	case g.Blob != nil:
		out = []string{"blob:" + g.Blob.Bucket}
	case g.Identity != nil:
		out = []string{"audience:" + g.Identity.Audience}
	case g.Secret != nil, g.Invoke != nil, g.Kind() == KindPublish:
	default:
		out = []string{g.Kind() + ":" + unknownTarget}
	}
	return strings.Join(out, "\n")
}

// hosts are those that the grant connects to.
func (g *HTTPGrant) hosts() []string {
	urls := []string{g.URL}
	if g.Auth.OAuth2 != nil {
		urls = append(urls, g.Auth.OAuth2.TokenURL)
	}
	if g.Proxy != "" {
		urls = append(urls, g.Proxy)
	}
	var out []string
	for _, u := range urls {
		host := unknownTarget
		if t, err := urltemplate.Parse(u); err == nil {
			host = t.Host
		}
		out = append(out, "host:"+host)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
