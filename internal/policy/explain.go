package policy

import (
	"iter"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"
)

// single is one policy as Cedar takes it.
type single struct{ policy *cedar.Policy }

// All yields the policy.
func (s single) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) { yield("", s.policy) }
}

// evaluate reports whether the request satisfies a policy.
func (w *world) evaluate(p *cedar.Policy) (holds bool, failure string) {
	if !w.make() {
		return false, ""
	}
	_, d := cedar.Authorize(single{p}, w, w.request)
	if len(d.Errors) > 0 {
		return false, d.Errors[0].Message
	}
	return len(d.Reasons) > 0, ""
}

// conditions evaluates each condition of a policy on its own.
func (w *world) conditions(c *compiled) []Condition {
	tree := c.parsed
	texts := conditionTexts(c.text)
	list := make([]Condition, len(tree.Conditions))
	for i, part := range tree.Conditions {
		alone := xast.Permit()
		alone.Conditions = []xast.ConditionType{part}
		list[i].Unless = !bool(part.Condition)
		list[i].Holds, list[i].Error = w.evaluate(cedar.NewPolicyFromAST((*ast.Policy)(alone)))
		if i < len(texts) {
			list[i].Text = texts[i]
		}
	}
	return list
}

// conditionTexts returns what stands between the braces of each when and unless of a policy.
func conditionTexts(text string) []string {
	s := &statement{file: &source{text: []byte(text)}}
	l := lexer{text: s.file.text}
	for t, fault, ok := l.next(); ok && fault == ""; t, fault, ok = l.next() {
		s.tokens = append(s.tokens, t)
	}
	var list []string
	depth, from := 0, 0
	for i := range s.tokens {
		switch s.word(i) {
		case "(", "[", "{":
			if w := s.word(i - 1); depth == 0 && (w == "when" || w == "unless") {
				from = s.tokens[i].end
			}
			depth++
		case ")", "]", "}":
			if depth--; depth == 0 && from > 0 {
				list = append(list, strings.TrimSpace(text[from:s.tokens[i].offset]))
				from = 0
			}
		}
	}
	return list
}
