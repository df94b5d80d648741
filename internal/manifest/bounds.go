package manifest

import (
	"math"
	"strconv"
	"time"
)

// Bound is one limit of a grant. A larger Value is more that is allowed.
type Bound struct {
	Name, Text string
	Value      int64
}

// Bounds returns the limits of the grant. With Reaches, it is all that a manifest says of a grant: the permission diff compares both.
func (g Grant) Bounds() []Bound {
	if g.Kind() == KindPublish {
		return nil
	}
	out := []Bound{
		number("rate", int64(g.Limits.Rate)), number("concurrency", int64(g.Limits.Concurrency)), span("timeout", g.Limits.Timeout),
		number("request", g.Limits.Request), number("reply", g.Limits.Reply), number("bytes", g.Limits.Bytes),
	}
	switch {
	case g.KV != nil:
		out = append(out, number("value_size", g.KV.ValueSize), number("quota", g.KV.Quota), kept(g.KV.TTL))
	case g.Blob != nil:
		out = append(out, number("object_size", g.Blob.ObjectSize), number("quota", g.Blob.Quota), kept(g.Blob.TTL))
	case g.SQL != nil:
		out = append(out, number("size", g.SQL.Size), number("connections", int64(g.SQL.Connections)), number("max_rows", int64(g.SQL.MaxRows)))
	case g.Secret != nil:
		out = append(out, span("lease", g.Secret.Lease))
	}
	return out
}

func number(name string, n int64) Bound { return Bound{name, strconv.FormatInt(n, 10), n} }

func span(name string, d time.Duration) Bound { return Bound{name, d.String(), int64(d)} }

// kept is how long something is kept, where 0 is for ever.
func kept(d time.Duration) Bound {
	if d == 0 {
		return Bound{"ttl", "for ever", math.MaxInt64}
	}
	return span("ttl", d)
}
