package policy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// Limits of policies. A server parses what others send, so each is checked before it costs.
const (
	// MaxFileBytes bounds the text of one file: five thousand policies fit.
	MaxFileBytes = 1 << 20
	// MaxPolicies bounds the policies of a namespace, and those of the server.
	MaxPolicies = 20_000
	// MaxFiles bounds the files of a namespace, and those of the server.
	MaxFiles = 1000
	// MaxPolicyTokens bounds one policy, in words, texts and signs: it is evaluated for every request in its scope.
	MaxPolicyTokens = 4096
	// MaxDepth bounds how deep expressions are in each other.
	MaxDepth = 32
	// MaxIDLength bounds the @id of a policy, in bytes: ids are in every denial and receipt.
	MaxIDLength = 100
	// maxFaults bounds how many faults one answer names; more is no help.
	maxFaults = 50
)

const codeInvalid = "policy.invalid"

// File is a text of policies.
type File struct {
	Name string // for messages, such as "policies/orders.cedar"
	Text []byte
	// Namespace is whose policies these are; "" is the whole server.
	Namespace ident.Namespace
}

// source is a file while it is read.
type source struct {
	name string
	text []byte
	ns   ident.Namespace
}

// reader reads files, and collects what is wrong with them.
type reader struct {
	schema *vocabulary
	faults []problem.Fault
	more   int
	// ids are those taken in each namespace, and where.
	ids map[ident.Namespace]map[string]string
}

func (r *reader) fault(f *source, offset, length int, format string, args ...any) {
	if len(r.faults) >= maxFaults {
		r.more++
		return
	}
	fault := problem.Mark(f.name, f.text, offset, length)
	fault.Detail = fmt.Sprintf(format, args...)
	r.faults = append(r.faults, fault)
}

// at notes a fault at a token of a statement; outside its tokens, at its last one.
func (r *reader) at(s *statement, i int, format string, args ...any) {
	t := s.tokens[max(0, min(i, len(s.tokens)-1))]
	r.fault(s.file, t.offset, t.end-t.offset, format, args...)
}

// err returns the problem of all faults, or nil. They stand as they were found: by file, in the order of
// its text.
func (r *reader) err() error {
	n := len(r.faults)
	if n == 0 {
		return nil
	}
	slices.SortStableFunc(r.faults, func(a, b problem.Fault) int {
		if a.File != b.File {
			return 0
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	what := "the policies have a fault"
	switch {
	case r.more > 0:
		what = fmt.Sprintf("the policies have %d faults, of which these are %d", n+r.more, n)
	case n > 1:
		what = fmt.Sprintf("the policies have %d faults", n)
	}
	return problem.New(problem.Invalid, codeInvalid, "%s", what).WithFaults(r.faults...)
}

// read returns the policies of a file. Those with faults are left out.
func (r *reader) read(f *source) []*compiled {
	switch i := invalidUTF8(f.text); {
	case len(f.text) > MaxFileBytes:
		size := len(f.text)
		f.text = nil
		r.fault(f, 0, 0, "the file is %d bytes, at most %d are allowed", size, MaxFileBytes)
		return nil
	case i >= 0:
		r.fault(f, i, 1, "not valid UTF-8")
		return nil
	case bytes.HasPrefix(f.text, []byte("\ufeff")):
		r.fault(f, 0, 0, "the file begins with a byte order mark; save it as UTF-8 without one")
		return nil
	case bytes.IndexByte(f.text, 0) >= 0:
		r.fault(f, bytes.IndexByte(f.text, 0), 1, "this character has no place here")
		return nil
	}
	var list []*compiled
	for _, s := range r.statements(f) {
		if c := r.policy(s); c != nil {
			list = append(list, c)
		}
	}
	return list
}

func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		c, n := utf8.DecodeRune(b[i:])
		if c == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// statements splits a file at its semicolons, so that a fault in one policy hides none in another.
func (r *reader) statements(f *source) []*statement {
	var list []*statement
	s := &statement{file: f}
	l := lexer{text: f.text}
	line, counted := 1, 0
	for {
		t, fault, ok := l.next()
		if fault != "" {
			r.fault(f, t.offset, t.end-t.offset, "%s", fault)
			return list
		}
		if !ok {
			break
		}
		if len(s.tokens) == 0 {
			line += bytes.Count(f.text[counted:t.offset], []byte("\n"))
			s.line, counted = line, t.offset
		}
		s.tokens = append(s.tokens, t)
		if s.word(len(s.tokens)-1) == ";" {
			list = append(list, s)
			s = &statement{file: f}
		}
	}
	if len(s.tokens) > 0 {
		list = append(list, s)
	}
	return list
}

// policy parses and validates one statement.
func (r *reader) policy(s *statement) *compiled {
	if n := len(s.tokens); n > MaxPolicyTokens {
		r.at(s, 0, "the policy has %d words, texts and signs, at most %d are allowed; make two of it", n, MaxPolicyTokens)
		return nil
	}
	if i := s.deep(); i >= 0 {
		r.at(s, i, "nested too deep; at most %d levels are allowed", MaxDepth)
		return nil
	}
	var p cedar.Policy
	if err := p.UnmarshalCedar(s.text()); err != nil {
		r.syntax(s, err)
		return nil
	}
	before := len(r.faults) + r.more
	id := r.id(s, &p)
	r.actAs(s, &p)
	r.validate(s, &p)
	if len(r.faults)+r.more > before {
		return nil
	}
	return compile(id, s, &p)
}

// id returns the policy's own @id, qualified by its namespace.
func (r *reader) id(s *statement, p *cedar.Policy) string {
	at := s.annotationToken("id")
	id := string(p.Annotations()["id"])
	switch {
	case at < 0:
		r.at(s, 0, `the policy has no @id; give it one, such as @id("orders-publish"): decisions and receipts name it`)
		return ""
	case !wellFormedID(id):
		r.at(s, at, "want 1 to %d letters, digits, hyphens, dots and underscores as the @id", MaxIDLength)
		return ""
	}
	for _, ns := range []ident.Namespace{s.file.ns, builtIn} {
		if first, taken := r.ids[ns][id]; taken && (ns == s.file.ns || s.file.ns == "") {
			r.at(s, at, "the @id %q is taken, at %s", id, first)
			return ""
		}
	}
	if r.ids[s.file.ns] == nil {
		r.ids[s.file.ns] = map[string]string{}
	}
	r.ids[s.file.ns][id] = fmt.Sprintf("%s:%d", s.file.name, s.line)
	if s.file.ns != "" && s.file.ns != builtIn {
		return string(s.file.ns) + "/" + id
	}
	return id
}

// actAs checks the annotation that lets a function act on its own authority. What is misspelt must not pass for nothing.
func (r *reader) actAs(s *statement, p *cedar.Policy) {
	at := s.annotationToken(actAs)
	switch {
	case at < 0:
	case p.Effect() != cedar.Permit:
		r.at(s, at, "@%s is for a permit: it says on whose authority a function does what is permitted", actAs)
	case p.Annotations()[actAs] != actAsFunction:
		r.at(s, at, `want @%s("%s"): without it, a function does only what its caller may do as well`, actAs, actAsFunction)
	}
}

// annotationToken returns the token of the value of an annotation, or of its name when it has none; -1 without it.
func (s *statement) annotationToken(name string) int {
	for i := 0; i+1 < len(s.tokens); i++ {
		switch s.word(i) {
		case "permit", "forbid":
			if s.word(i+1) == "(" {
				return -1
			}
		case "@":
			if s.word(i+1) != name {
				continue
			}
			if s.word(i+2) == "(" && i+3 < len(s.tokens) {
				return i + 3
			}
			return i + 1
		}
	}
	return -1
}

func wellFormedID(id string) bool {
	if id == "" || len(id) > MaxIDLength {
		return false
	}
	for i := range len(id) {
		if c := id[i]; !isWord(c) && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// compiled is a policy of a Set.
type compiled struct {
	id string
	// parsed is the policy as it was parsed, and policy as Cedar evaluates it, made when it is needed.
	parsed *xast.Policy
	policy func() *cedar.Policy
	// body is policy without its scope: the index finds exactly those whose scope a request is in, so that it need not
	// be evaluated again. It is made when a request needs it: most never do, for quick conditions know the answer.
	body func() *cedar.Policy
	// quick are the conditions in their quick form, and quickLoose those of loose.
	quick, quickLoose []quickTest
	// permit, principal and so on are parts of the policy, for the index and the analyses.
	permit bool
	// own says that a function that it permits something acts on its own authority.
	own   bool
	scope scope
	// reads are the parts of the context that its conditions read.
	reads ContextPart
	// loose is body with the conditions that read the context taken to hold; nil for a forbid that has any.
	loose func() *cedar.Policy
	file  string
	line  int
	ns    ident.Namespace
	// text is the policy as it stands in its file.
	text string
}

func compile(id string, s *statement, p *cedar.Policy) *compiled {
	tree := (*xast.Policy)(p.AST())
	c := &compiled{
		id: id, parsed: tree, permit: p.Effect() == cedar.Permit, own: p.Annotations()[actAs] != "", scope: scopeOf(tree), reads: readsOf(tree),
		file: s.file.name, line: s.line, ns: s.file.ns, text: strings.Clone(string(s.text())),
	}
	c.policy = sync.OnceValue(func() *cedar.Policy { return cedar.NewPolicyFromAST((*ast.Policy)(tree)) })
	c.body, c.quick = conditionsOnly(tree), quickTests(tree)
	if c.loose, c.quickLoose = c.body, c.quick; c.reads != 0 {
		c.loose, c.quickLoose = nil, nil
		if loose := loosen(c.permit, c.reads, tree); loose != nil {
			c.loose, c.quickLoose = conditionsOnly(loose), quickTests(loose)
		}
	}
	return c
}

// conditionsOnly makes a policy of the conditions of one, when it is needed.
func conditionsOnly(tree *xast.Policy) func() *cedar.Policy {
	return sync.OnceValue(func() *cedar.Policy {
		body := *tree
		body.Principal, body.Action, body.Resource = xast.ScopeTypeAll{}, xast.ScopeTypeAll{}, xast.ScopeTypeAll{}
		return cedar.NewPolicyFromAST((*ast.Policy)(&body))
	})
}
