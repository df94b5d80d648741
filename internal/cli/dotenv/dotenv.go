// Package dotenv reads .env files: lines of the form NAME=value. It is pure, and nothing in a file is expanded or run. Caller: cli.
package dotenv

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	// MaxBytes bounds a file.
	MaxBytes = 1 << 20
	// maxEntries bounds its lines that set something.
	maxEntries = 1000
)

// Entry is one value of a file.
type Entry struct {
	Name  string
	Value []byte
	Line  int // from 1
}

// Error says what is wrong in a line, without what stands there: it may be a secret.
type Error struct {
	Line   int
	Detail string
}

// Error returns the line and what is wrong with it.
func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Detail) }

// Parse reads a file. Comments begin with # at the beginning of a line, or after a space behind a value without quotes. A value in single
// quotes stands as it is; in double quotes, \n, \r, \t, \" and \\ are what they mean, and it may go on over several lines.
func Parse(text []byte) ([]Entry, error) {
	if len(text) > MaxBytes {
		return nil, &Error{1, fmt.Sprintf("the file is larger than %d bytes", MaxBytes)}
	}
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return nil, &Error{1, "the file is no text"}
	}
	p := &parser{rest: bytes.TrimPrefix(text, []byte("\ufeff")), line: 1}
	seen := map[string]int{}
	var out []Entry
	for len(p.rest) > 0 {
		e, ok, err := p.entry()
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if was := seen[e.Name]; was > 0 {
			return nil, &Error{e.Line, fmt.Sprintf("%s is set in line %d already", e.Name, was)}
		}
		if len(out) == maxEntries {
			return nil, &Error{e.Line, fmt.Sprintf("more than %d values", maxEntries)}
		}
		seen[e.Name] = e.Line
		out = append(out, e)
	}
	return out, nil
}

type parser struct {
	rest []byte
	line int
}

// cut takes the rest of the line.
func (p *parser) cut() []byte {
	line, rest, _ := bytes.Cut(p.rest, []byte("\n"))
	p.rest = rest
	p.line++
	return bytes.TrimSuffix(line, []byte("\r"))
}

// entry reads one line, or more when a value goes on. ok is false when nothing stands there.
func (p *parser) entry() (e Entry, ok bool, err error) {
	p.rest = bytes.TrimLeft(p.rest, " \t")
	e.Line = p.line
	if len(p.rest) == 0 || p.rest[0] == '#' || p.rest[0] == '\n' || p.rest[0] == '\r' {
		if line := p.cut(); len(line) > 0 && line[0] != '#' {
			return e, false, &Error{e.Line, "a line break that is none"}
		}
		return e, false, nil
	}
	if after, found := bytes.CutPrefix(p.rest, []byte("export ")); found {
		p.rest = bytes.TrimLeft(after, " \t")
	}
	n := 0
	for n < len(p.rest) && isName(p.rest[n], n > 0) {
		n++
	}
	e.Name, p.rest = string(p.rest[:n]), bytes.TrimLeft(p.rest[n:], " \t")
	if n == 0 || len(p.rest) == 0 || p.rest[0] != '=' {
		return e, false, &Error{e.Line, "want NAME=value"}
	}
	p.rest = bytes.TrimLeft(p.rest[1:], " \t")
	if len(p.rest) > 0 && (p.rest[0] == '"' || p.rest[0] == '\'') {
		e.Value, err = p.quoted()
		return e, err == nil, err
	}
	line := p.cut()
	if len(line) > 0 && line[0] == '#' {
		line = nil
	}
	for i := 1; i < len(line); i++ {
		if line[i] == '#' && (line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
			break
		}
	}
	e.Value = bytes.Clone(bytes.TrimRight(line, " \t"))
	return e, true, nil
}

func isName(c byte, inside bool) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || inside && ('0' <= c && c <= '9' || c == '.' || c == '-')
}

// quoted reads a value in quotes and the rest of its line.
func (p *parser) quoted() ([]byte, error) {
	quote, at := p.rest[0], p.line
	var out []byte
	i := 1
	for ; i < len(p.rest) && p.rest[i] != quote; i++ {
		c := p.rest[i]
		if c == '\n' {
			p.line++
		}
		if c != '\\' || quote == '\'' || i+1 == len(p.rest) {
			out = append(out, c)
			continue
		}
		i++
		if j := strings.IndexByte(`nrt"\$`, p.rest[i]); j >= 0 {
			out = append(out, "\n\r\t\"\\$"[j])
		} else {
			out = append(out, '\\', p.rest[i])
		}
	}
	if i >= len(p.rest) {
		return nil, &Error{at, "the quotes do not end"}
	}
	p.rest = p.rest[i+1:]
	line := p.line
	if after := bytes.TrimLeft(p.cut(), " \t"); len(after) > 0 && after[0] != '#' {
		return nil, &Error{line, "something follows the quotes"}
	}
	return out, nil
}

// SecretName returns the name of a secret for a name of a file: STRIPE_KEY is stripe-key.
func SecretName(name string) string {
	name = strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
	for strings.Contains(name, "--") {
		name = strings.ReplaceAll(name, "--", "-")
	}
	return strings.Trim(name, "-")
}
