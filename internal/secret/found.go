package secret

import (
	"bytes"
	"context"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
	"sallyport/internal/redact"
)

const (
	// minFound is how long a value must be to be looked for in what people write: a shorter one may be a word of it, and who writes
	// words could find out by it which one it is.
	minFound = 16
	// maxFound bounds the values that are looked for at a time, in bytes: a redact.Set takes twenty times as much.
	maxFound = 128 << 10
)

// CheckText returns a problem when a text that people write holds a value of a secret of the namespace, in clear or encoded. file names the text. Values
// of fewer than 16 bytes and decoys are not looked for.
func (s *Store) CheckText(ctx context.Context, ns ident.Namespace, file string, text []byte) error {
	var found ident.SecretName
	var line int
	err := s.each(ctx, ns, func(values []named) bool {
		if !setOf(values).Found(text) {
			return true
		}
		for i := range values {
			if one := setOf(values[i : i+1]); one.Found(text) {
				found, line = values[i].name, lineOf(one, text)
				return false
			}
		}
		return true
	})
	switch {
	case err != nil:
		return err
	case found == "":
		return nil
	}
	fault := problem.Fault{File: file, Line: line, Detail: "here"}
	return problem.New(problem.Unprocessable, "secret.in_manifest", "%s holds the value of the secret %q", file, found).WithFaults(fault).
		WithHint(`write "secret:%s" where a credential belongs; the value stands in a file now, so make a new one: sallyport secret set %s`, found, found)
}

// Hide takes the values of the secrets of a namespace out of an error that is about a text of people. What it cannot look up, it keeps to itself.
func (s *Store) Hide(ctx context.Context, ns ident.Namespace, err error) error {
	p := *problem.From(err)
	faults := append([]problem.Fault(nil), p.Faults...)
	p.Faults = faults
	changed := false
	failed := s.each(ctx, ns, func(values []named) bool {
		set := setOf(values)
		clean := func(text *string) {
			if out := set.Text(*text); out != *text {
				*text, changed = out, true
			}
		}
		clean(&p.Public)
		clean(&p.Hint)
		for i := range faults {
			clean(&faults[i].Source)
			clean(&faults[i].Detail)
		}
		return true
	})
	switch {
	case failed != nil:
		return failed
	case changed:
		return &p
	}
	return err
}

// lineOf returns the line of a text that holds a value, 0 when it is over several.
func lineOf(set *redact.Set, text []byte) int {
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if set.Found(line) {
			return n
		}
	}
	return 0
}

type named struct {
	name  ident.SecretName
	value []byte
}

func setOf(values []named) *redact.Set {
	all := make([][]byte, len(values))
	for i, v := range values {
		all[i] = v.value
	}
	return redact.AtLeast(minFound, all...)
}

// each calls f with the values of the secrets of a namespace, some at a time, until it returns false. They are cleared when it returns.
func (s *Store) each(ctx context.Context, ns ident.Namespace, f func([]named) bool) error {
	sp, err := s.space(ctx, ns)
	if err != nil {
		return err
	}
	var some []named
	size := 0
	flush := func() bool {
		more := len(some) == 0 || f(some)
		for _, v := range some {
			clear(v.value)
		}
		some, size = some[:0], 0
		return more
	}
	for _, r := range sp.all() {
		if r.Canary {
			continue // a decoy is to be found
		}
		values, err := s.valuesOf(ctx, sp, r)
		if err != nil {
			return err
		}
		for _, v := range values {
			if v = secretPart(v); len(v) >= minFound {
				some, size = append(some, named{r.Name, v}), size+len(v)
			}
		}
		if size >= maxFound && !flush() {
			return nil
		}
	}
	flush()
	return nil
}

// valuesOf returns the values that a secret has or had, as far as they are there; of one in another store those that are held. The server's log, which
// hides what is in use, need not know of them.
func (s *Store) valuesOf(ctx context.Context, sp *space, r *record) ([][]byte, error) {
	if r.Reference == "" {
		return sp.live(ctx, []*record{r}, sp.unseal)
	}
	ref, err := ident.ParseSecretRef(r.Reference)
	if err != nil {
		return nil, nil
	}
	return s.cfg.Outside.held(sp.ns, ref), nil
}

// secretPart returns what of a value is secret: certificates, which a value has beside their key, are in many places.
func secretPart(v []byte) []byte {
	const mark = "-----"
	if !bytes.Contains(v, []byte(mark+"BEGIN ")) {
		return v
	}
	var out []byte
	certificate := false
	for line := range bytes.Lines(v) {
		switch {
		case bytes.HasPrefix(line, []byte(mark)):
			certificate = bytes.HasPrefix(line, []byte(mark+"BEGIN CERTIFICATE"))
		case !certificate:
			out = append(out, line...)
		}
	}
	clear(v)
	return out
}
