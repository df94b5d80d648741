package sqltext

import "strings"

type kind uint8

const (
	kindWord   kind = iota + 1 // a name or keyword
	kindQuoted                 // a text, or a name in quotes
	kindNumber
	kindParam
	kindOther // one character
)

type token struct {
	kind   kind
	offset int
	text   string
}

// word returns a name or keyword in lower case, and "" for anything else.
func (t token) word() string {
	if t.kind != kindWord {
		return ""
	}
	return strings.ToLower(t.text)
}

// scanner takes a text apart. Comments are left out.
type scanner struct {
	d      Dialect
	text   string
	at     int
	tokens []token
}

func scan(d Dialect, text string) ([]token, error) {
	if i := strings.IndexByte(text, 0); i >= 0 {
		return nil, &Error{Offset: i, Length: 1, Detail: "a NUL character"}
	}
	s := &scanner{d: d, text: text}
	for {
		if err := s.skip(); err != nil {
			return nil, err
		}
		if s.at == len(text) {
			return s.tokens, nil
		}
		if err := s.next(); err != nil {
			return nil, err
		}
	}
}

// skip passes over spaces and comments.
func (s *scanner) skip() error {
	for s.at < len(s.text) {
		rest := s.text[s.at:]
		switch {
		case strings.IndexByte(" \t\r\n\f\v", rest[0]) >= 0:
			s.at++
		case strings.HasPrefix(rest, "--"):
			end := strings.IndexByte(rest, '\n')
			if end < 0 {
				end = len(rest)
			}
			s.at += end
		case strings.HasPrefix(rest, "/*"):
			if err := s.comment(); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

// comment passes over a comment. Those of PostgreSQL nest.
func (s *scanner) comment() error {
	start, depth := s.at, 0
	for s.at < len(s.text) {
		switch rest := s.text[s.at:]; {
		case strings.HasPrefix(rest, "/*") && (depth == 0 || s.d == PostgreSQL):
			depth++
			s.at += 2
		case strings.HasPrefix(rest, "*/"):
			depth--
			s.at += 2
			if depth == 0 {
				return nil
			}
		default:
			s.at++
		}
	}
	return &Error{Offset: start, Length: 2, Detail: "the comment is not closed"}
}

func (s *scanner) next() error {
	start, c := s.at, s.text[s.at]
	switch {
	case c == '\'' || c == '"', s.d == SQLite && (c == '`' || c == '['):
		return s.quoted(start)
	case c == '$':
		return s.dollar()
	case s.d == SQLite && strings.IndexByte("?:@#", c) >= 0:
		return &Error{Offset: start, Length: 1, Detail: "parameters are $1, $2 and so on"}
	case wordByte(c) && !digit(c):
		return s.nameOrText()
	case digit(c):
		for s.at < len(s.text) && (wordByte(s.text[s.at]) || s.text[s.at] == '.') {
			s.at++
		}
		s.add(kindNumber, start)
	default:
		s.at++
		s.add(kindOther, start)
	}
	return nil
}

// nameOrText reads a name; E'…' is a text with escapes, and other letters before a quote change nothing
// about where it ends.
func (s *scanner) nameOrText() error {
	start := s.at
	for s.at < len(s.text) && (wordByte(s.text[s.at]) || s.text[s.at] == '$') {
		s.at++
	}
	if s.d == PostgreSQL && s.at < len(s.text) && s.text[s.at] == '\'' && strings.EqualFold(s.text[start:s.at], "e") {
		return s.escaped(start)
	}
	s.add(kindWord, start)
	return nil
}

// quoted reads a text or name in quotes; the quote itself is doubled within.
func (s *scanner) quoted(start int) error {
	end := s.text[s.at]
	if end == '[' {
		end = ']'
	}
	for s.at++; s.at < len(s.text); s.at++ {
		if s.text[s.at] != end {
			continue
		}
		s.at++
		if end == ']' || s.at == len(s.text) || s.text[s.at] != end {
			s.add(kindQuoted, start)
			return nil
		}
	}
	return &Error{Offset: start, Length: 1, Detail: "the quote is not closed"}
}

func (s *scanner) escaped(start int) error {
	for s.at++; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '\\':
			s.at++
		case '\'':
			s.at++
			if s.at == len(s.text) || s.text[s.at] != '\'' {
				s.add(kindQuoted, start)
				return nil
			}
		}
	}
	s.at = len(s.text)
	return &Error{Offset: start, Length: 2, Detail: "the quote is not closed"}
}

// dollar reads a parameter, or PostgreSQL's text between $tag$ and $tag$.
func (s *scanner) dollar() error {
	start := s.at
	for s.at++; s.at < len(s.text) && wordByte(s.text[s.at]); s.at++ {
	}
	tag := s.text[start:s.at]
	isTag := s.at < len(s.text) && s.text[s.at] == '$' && (len(tag) == 1 || !digit(tag[1]))
	if s.d == SQLite || !isTag {
		s.add(kindParam, start)
		return nil
	}
	s.at++
	end := strings.Index(s.text[s.at:], tag+"$")
	if end < 0 {
		return &Error{Offset: start, Length: len(tag) + 1, Detail: "the text in dollar quotes is not closed"}
	}
	s.at += end + len(tag) + 1
	s.add(kindQuoted, start)
	return nil
}

func (s *scanner) add(k kind, start int) {
	s.tokens = append(s.tokens, token{kind: k, offset: start, text: s.text[start:s.at]})
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func wordByte(c byte) bool {
	return c == '_' || c >= 0x80 || digit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
