package api

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

//go:embed problems/*.toml
var problemFiles embed.FS

// ProblemEntry is what there is to know of one problem code, beyond what an answer says.
type ProblemEntry struct {
	Code    string // stable, such as "event.schema_violation"
	Title   string // one line, no full stop
	Explain string // what it means, the usual cause, what to do
}

// Problems returns every problem code there is, in order of code. An error means that this
// repository's own files are wrong, which a test rules out.
func Problems() ([]ProblemEntry, error) {
	files, err := problemFiles.ReadDir("problems")
	if err != nil {
		return nil, fmt.Errorf("list problem files: %w", err)
	}
	var all []ProblemEntry
	for _, f := range files {
		text, err := problemFiles.ReadFile(path.Join("problems", f.Name()))
		if err != nil {
			return nil, fmt.Errorf("read problem file: %w", err)
		}
		entries, err := ParseProblems(text)
		if err != nil {
			return nil, fmt.Errorf("problems/%s: %w", f.Name(), err)
		}
		all = append(all, entries...)
	}
	slices.SortFunc(all, func(a, b ProblemEntry) int { return cmp.Compare(a.Code, b.Code) })
	for i := 1; i < len(all); i++ {
		if all[i].Code == all[i-1].Code {
			return nil, fmt.Errorf("problem %q is registered twice", all[i].Code)
		}
	}
	return all, nil
}

// maxProblemText bounds a problem file, in bytes; the files are a few KiB.
const maxProblemText = 1 << 20

// ParseProblems reads the registration of problems: a strict subset of TOML, so that the format
// needs no library and every TOML editor understands it.
//
//	# A comment has a line of its own.
//	["area.code"]
//	title   = "One line"
//	explain = """One or
//	more lines."""
//
// A text is a basic string, or a multi-line basic string whose first line break, when it comes
// directly after the quotes, is dropped. The escapes are \" \\ \n and \t, and in a multi-line string
// a backslash at the end of a line, which joins it to the next text. Each table has both keys, once.
func ParseProblems(text []byte) ([]ProblemEntry, error) {
	if len(text) > maxProblemText {
		return nil, fmt.Errorf("file is %d bytes long, want at most %d", len(text), maxProblemText)
	}
	if !utf8.Valid(text) {
		return nil, errors.New("file is not UTF-8")
	}
	p := problemParser{rest: text, line: 1}
	for !p.done() {
		if err := p.statement(); err != nil {
			return nil, fmt.Errorf("line %d: %w", p.line, err)
		}
	}
	if err := p.finish(); err != nil {
		return nil, fmt.Errorf("line %d: %w", p.line, err)
	}
	return p.entries, nil
}

type problemParser struct {
	rest    []byte
	line    int
	entries []ProblemEntry
}

func (p *problemParser) done() bool { return len(p.rest) == 0 }

// statement reads one line: empty, a comment, a table's header or a key with its value (which may
// go on over more lines).
func (p *problemParser) statement() error {
	p.space()
	switch {
	case p.done():
		return nil
	case p.rest[0] == '#':
		return p.comment()
	case p.rest[0] == '\n' || p.rest[0] == '\r':
		return p.endOfLine()
	case p.rest[0] == '[':
		return p.header()
	}
	return p.pair()
}

// header reads ["area.code"].
func (p *problemParser) header() error {
	if err := p.finish(); err != nil {
		return err
	}
	p.rest = p.rest[1:]
	if bytes.HasPrefix(p.rest, []byte(`"""`)) {
		return errors.New("want a name in single quotation marks")
	}
	code, err := p.value()
	if err != nil {
		return err
	}
	if !validCode(code) {
		return fmt.Errorf("code %q; want area.snake_case", code)
	}
	if p.done() || p.rest[0] != ']' {
		return errors.New("want ] after the code")
	}
	p.rest = p.rest[1:]
	p.entries = append(p.entries, ProblemEntry{Code: code})
	return p.endOfLine()
}

// pair reads key = "text".
func (p *problemParser) pair() error {
	if len(p.entries) == 0 {
		return errors.New(`want ["area.code"] before the first key`)
	}
	e := &p.entries[len(p.entries)-1]
	fields := map[string]*string{"title": &e.Title, "explain": &e.Explain}
	n := bytes.IndexAny(p.rest, " \t=\r\n")
	if n < 0 {
		n = len(p.rest)
	}
	key := string(p.rest[:n])
	field, ok := fields[key]
	if !ok {
		return fmt.Errorf("key %q; want title or explain", key)
	}
	if *field != "" {
		return fmt.Errorf("%s is given twice", key)
	}
	p.rest = p.rest[n:]
	p.space()
	if p.done() || p.rest[0] != '=' {
		return errors.New("want = after the key")
	}
	p.rest = p.rest[1:]
	p.space()
	text, err := p.value()
	if err != nil {
		return err
	}
	if strings.TrimSpace(text) == "" {
		return fmt.Errorf("%s is empty", key)
	}
	if key == "title" && strings.Contains(text, "\n") {
		return errors.New("title has more than one line")
	}
	*field = text
	return p.endOfLine()
}

// finish checks that the last table is complete.
func (p *problemParser) finish() error {
	if len(p.entries) == 0 {
		return nil
	}
	if e := p.entries[len(p.entries)-1]; e.Title == "" || e.Explain == "" {
		return fmt.Errorf("problem %q lacks its title or explain", e.Code)
	}
	return nil
}

// value reads a basic string, of one line or of more.
func (p *problemParser) value() (string, error) {
	switch {
	case bytes.HasPrefix(p.rest, []byte(`"""`)):
		p.rest = p.rest[3:]
		p.lineBreak()
		return p.text(`"""`)
	case bytes.HasPrefix(p.rest, []byte(`"`)):
		p.rest = p.rest[1:]
		return p.text(`"`)
	}
	return "", errors.New("want a text in quotation marks")
}

// text reads up to the closing quotation marks.
func (p *problemParser) text(quote string) (string, error) {
	many := len(quote) > 1
	var b strings.Builder
	for !p.done() {
		switch c := p.rest[0]; {
		case bytes.HasPrefix(p.rest, []byte(quote)):
			p.rest = p.rest[len(quote):]
			return b.String(), nil
		case c == '\\':
			if err := p.escape(&b, many); err != nil {
				return "", err
			}
		case c == '\n' || c == '\r':
			if !many || !p.lineBreak() {
				return "", errors.New("text is not closed on its line")
			}
			b.WriteByte('\n')
		case c < ' ' && c != '\t' || c == 0x7f:
			return "", fmt.Errorf("text has the control character %#x", c)
		default:
			b.WriteByte(c)
			p.rest = p.rest[1:]
		}
	}
	return "", errors.New("text is not closed")
}

// escape reads a backslash and what follows it.
func (p *problemParser) escape(b *strings.Builder, many bool) error {
	p.rest = p.rest[1:]
	if p.done() {
		return errors.New("text is not closed")
	}
	c := p.rest[0]
	switch c {
	case '"', '\\':
		b.WriteByte(c)
	case 'n':
		b.WriteByte('\n')
	case 't':
		b.WriteByte('\t')
	default:
		return p.join(many)
	}
	p.rest = p.rest[1:]
	return nil
}

// join skips the rest of a line that ends in a backslash, and all white space after it.
func (p *problemParser) join(many bool) error {
	p.space()
	if !many || !p.lineBreak() {
		return errors.New(`escape that is none of \" \\ \n \t`)
	}
	for p.space(); p.lineBreak(); p.space() {
	}
	return nil
}

// comment skips to the end of the line.
func (p *problemParser) comment() error {
	for !p.done() && p.rest[0] != '\n' && p.rest[0] != '\r' {
		if c := p.rest[0]; c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Errorf("comment has the control character %#x", c)
		}
		p.rest = p.rest[1:]
	}
	return p.endOfLine()
}

// endOfLine wants nothing more on the line.
func (p *problemParser) endOfLine() error {
	p.space()
	if p.done() || p.lineBreak() {
		return nil
	}
	return errors.New("want the end of the line")
}

// lineBreak skips one line break and reports whether there was one.
func (p *problemParser) lineBreak() bool {
	rest, ok := bytes.CutPrefix(p.rest, []byte("\n"))
	if !ok {
		rest, ok = bytes.CutPrefix(p.rest, []byte("\r\n"))
	}
	if ok {
		p.rest = rest
		p.line++
	}
	return ok
}

func (p *problemParser) space() {
	p.rest = bytes.TrimLeft(p.rest, " \t")
}

// validCode accepts "internal", and "area.snake_case" for everything else.
func validCode(s string) bool {
	const most = 80
	area, name, dotted := strings.Cut(s, ".")
	return len(s) <= most && (s == "internal" || dotted && snake(area) && snake(name))
}

func snake(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z':
		case i > 0 && ('0' <= c && c <= '9' || c == '_'):
		default:
			return false
		}
	}
	return s != ""
}
