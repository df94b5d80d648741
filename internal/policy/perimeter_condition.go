package policy

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"

	"sallyport/internal/problem"
)

// condition is the condition of a bridge.
type condition struct {
	holds *cedar.Policy // permits everything, when the condition holds
	// loose is holds with what reads the context taken to be as it must.
	loose *cedar.Policy
	reads ContextPart
}

// Cedar's library parses policies and no expressions, so a condition is parsed within this one. The frame has lines of
// its own: places in the condition are then off by one line. Only the tree of the condition is used; it is in a
// policy that is made as a tree.
const (
	conditionHead = "permit (principal, action, resource) when {\n"
	conditionTail = "\n};"
)

// parseCondition returns the expression of a condition, and what is wrong with it. Faults are at places in
// the text.
func (r *reader) parseCondition(text string) (*statement, xast.IsNode) {
	f := &source{text: []byte(conditionHead + text + conditionTail)}
	from := len(conditionHead)
	switch {
	case len(text) > MaxConditionBytes:
		f.text = nil
		r.fault(f, 0, 0, "the condition is %d bytes, at most %d are allowed", len(text), MaxConditionBytes)
		return nil, nil
	case !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0:
		r.fault(f, 0, 0, "the condition has bytes that are no text")
		return nil, nil
	case strings.TrimSpace(text) == "":
		r.fault(f, 0, 0, "the condition is empty; leave it out")
		return nil, nil
	}
	all := &statement{file: f, line: 1}
	inner := &statement{file: f, line: 1}
	l := lexer{text: f.text}
	for {
		t, fault, ok := l.next()
		if fault != "" {
			r.fault(f, t.offset, t.end-t.offset, "%s", fault)
			return nil, nil
		}
		if !ok {
			break
		}
		all.tokens = append(all.tokens, t)
		if t.offset >= from && t.offset < from+len(text) {
			inner.tokens = append(inner.tokens, t)
		}
	}
	switch n := len(inner.tokens); {
	case n == 0:
		r.fault(f, 0, 0, "the condition is empty; leave it out")
		return nil, nil
	case n > MaxConditionTokens:
		r.at(inner, 0, "the condition has %d words, texts and signs, at most %d are allowed", n, MaxConditionTokens)
		return nil, nil
	}
	if i, detail := inner.astray(); i >= 0 {
		r.at(inner, i, "%s", detail)
		return nil, nil
	}
	var p cedar.Policy
	if err := p.UnmarshalCedar(f.text); err != nil {
		r.syntax(all, err)
		return nil, nil
	}
	tree := (*xast.Policy)(p.AST())
	if len(tree.Conditions) != 1 || tree.Conditions[0].Condition != xast.ConditionWhen {
		r.at(inner, 0, "want one expression that is true or false")
		return nil, nil
	}
	return inner, tree.Conditions[0].Body
}

// astray returns the first token that cannot be in one expression, and why, or -1: a bracket that closes what it did
// not open, a semicolon, or what is nested too deep.
func (s *statement) astray() (at int, detail string) {
	if i := s.deep(); i >= 0 {
		return i, fmt.Sprintf("nested too deep; at most %d levels are allowed", MaxDepth)
	}
	closing := map[string]string{"(": ")", "[": "]", "{": "}"}
	var open []int
	for i := range s.tokens {
		switch w := s.word(i); w {
		case "(", "[", "{":
			open = append(open, i)
		case ")", "]", "}":
			if len(open) == 0 || closing[s.word(open[len(open)-1])] != w {
				return i, fmt.Sprintf("this %q closes nothing", w)
			}
			open = open[:len(open)-1]
		case ";":
			return i, "want one expression, without a semicolon"
		}
	}
	if len(open) > 0 {
		i := open[len(open)-1]
		return i, fmt.Sprintf("this %q is not closed", s.word(i))
	}
	return -1, ""
}

// condition parses and validates the condition of a bridge: for every kind of principal and every action that it is
// asked about.
func (r *reader) condition(text string, kinds []Kind, actions []Action) *condition {
	before := len(r.faults) + r.more
	s, body := r.parseCondition(text)
	if body == nil {
		return nil
	}
	when := []xast.ConditionType{{Condition: xast.ConditionWhen, Body: body}}
	for _, kind := range kinds {
		tree := xast.Permit()
		tree.Principal = xast.ScopeTypeIs{Type: entityType(kind)}
		in := xast.ScopeTypeInSet{}
		for _, a := range actions {
			in.Entities = append(in.Entities, actionUID(a))
		}
		tree.Action = in
		tree.Conditions = when
		r.validate(s, cedar.NewPolicyFromAST((*ast.Policy)(tree)))
	}
	if len(r.faults)+r.more > before {
		return nil
	}
	tree := xast.Permit()
	tree.Conditions = when
	c := &condition{holds: cedar.NewPolicyFromAST((*ast.Policy)(tree)), reads: readsOf(tree)}
	c.loose = cedar.NewPolicyFromAST((*ast.Policy)(loosen(true, c.reads, tree)))
	return c
}

func entityType(k Kind) cedar.EntityType { return cedar.EntityType(k) }

// inText moves a fault from the frame to the condition, where its lines begin with 1. Line 0 is the whole condition.
func inText(text string, f problem.Fault) problem.Fault {
	f.Line--
	if lines := 1 + strings.Count(text, "\n"); f.Line > lines {
		f.Line = 0 // at the end of the frame
	}
	return f
}
