package policy

import (
	"bytes"
	"strconv"
)

// token is a lexical element of a Cedar text. Cedar's own parser keeps no places below the policy, and
// stops at the first fault; tokens say where things stand, and where the next policy begins.
type token struct {
	kind        tokenKind
	offset, end int
}

type tokenKind uint8

const (
	tokenWord tokenKind = iota
	tokenNumber
	tokenText
	tokenSign
)

// lexer splits a text into tokens.
type lexer struct {
	text []byte
	at   int
}

// next returns the next token; ok is false at the end of the text. fault, when not "", says why the text
// at the token cannot be read.
func (l *lexer) next() (t token, fault string, ok bool) {
	l.skip()
	if l.at >= len(l.text) {
		return token{offset: l.at, end: l.at}, "", false
	}
	t.offset = l.at
	c := l.text[l.at]
	switch {
	case isWord(c):
		t.kind = tokenWord
		if c >= '0' && c <= '9' {
			t.kind = tokenNumber
		}
		for l.at < len(l.text) && isWord(l.text[l.at]) {
			l.at++
		}
	case c == '"':
		t.kind = tokenText
		if !l.quoted() {
			t.end = t.offset + 1
			return t, "this text has no end on its line; close it with a quote", true
		}
	default:
		t.kind = tokenSign
		l.at++
		for _, two := range []string{"::", "==", "!=", "<=", ">=", "&&", "||"} {
			if bytes.HasPrefix(l.text[t.offset:], []byte(two)) {
				l.at++
				break
			}
		}
		if bytes.IndexByte([]byte(`(){}[],;.@<>+-*!:=&|%/`), c) < 0 {
			fault = "this character has no place here"
		}
	}
	t.end = l.at
	return t, fault, true
}

// skip passes white space and comments.
func (l *lexer) skip() {
	for l.at < len(l.text) {
		switch c := l.text[l.at]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			l.at++
		case c == '/' && l.at+1 < len(l.text) && l.text[l.at+1] == '/':
			end := bytes.IndexByte(l.text[l.at:], '\n')
			if end < 0 {
				end = len(l.text) - l.at
			}
			l.at += end
		default:
			return
		}
	}
}

// quoted passes a text in quotes, and reports whether it ends on its line. Cedar lets a text have more
// lines; a quote that is forgotten would then be found far from where it should stand.
func (l *lexer) quoted() bool {
	for l.at++; l.at < len(l.text); l.at++ {
		switch l.text[l.at] {
		case '\\':
			l.at++
		case '"':
			l.at++
			return true
		case '\n':
			return false
		}
	}
	return false
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}

// statement is one policy in a file, as far as its tokens tell.
type statement struct {
	file   *source
	tokens []token
	line   int // of its first token, from 1
}

func (s *statement) word(i int) string {
	if i < 0 || i >= len(s.tokens) {
		return ""
	}
	return string(s.file.text[s.tokens[i].offset:s.tokens[i].end])
}

// unquoted returns the value of a token that is a text, when Go's rules read it as Cedar's do.
func (s *statement) unquoted(i int) string {
	text, err := strconv.Unquote(s.word(i))
	if err != nil {
		return ""
	}
	return text
}

// text is the statement as it stands in its file.
func (s *statement) text() []byte {
	return s.file.text[s.tokens[0].offset:s.tokens[len(s.tokens)-1].end]
}

// find returns the first token with this text, or -1.
func (s *statement) find(text string) int {
	for i := range s.tokens {
		if s.word(i) == text {
			return i
		}
	}
	return -1
}

// deep returns the first token that is nested deeper than the limit, or -1: brackets in each other,
// signs before each other, and ifs. Cedar's parser, validator and evaluation call themselves for each.
func (s *statement) deep() int {
	brackets, ifs, signs := 0, 0, 0
	for i := range s.tokens {
		w := s.word(i)
		switch w {
		case "(", "[", "{":
			brackets++
		case ")", "]", "}":
			brackets--
		case "if":
			ifs++
		}
		if w == "!" || w == "-" {
			signs++
		} else {
			signs = 0
		}
		if brackets+ifs+signs > MaxDepth {
			return i
		}
	}
	return -1
}
