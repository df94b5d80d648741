// Package iam turns AWS IAM policies into policies of a namespace.
//
// The rule is that an Allow may only become narrower, and a Deny only wider. What cannot be carried over that way is
// refused, with the reason and its place; when a Deny is refused, no Allow is carried over either, for what it kept
// from anyone would be open. The result is validated like any other policy before it is returned.
//
// IAM has more actions than there are here, and cuts them finer. An action is allowed when the Allow has all IAM
// actions that make it up, and forbidden when the Deny has any; the catalogue is in catalogue.go. ARNs are read
// without their account and region: whoever imports a policy into a namespace says that it is about that namespace.
//
// It is pure: JSON in, Cedar out. Its callers are the command line and the API.
//
// Source: the IAM JSON policy reference, https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies.html.
package iam

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// Limits of an IAM policy. AWS's own are lower: 10,240 bytes for the policies of a role.
const (
	MaxBytes      = 256 << 10
	maxStatements = 1000
	maxValues     = 1000 // of one list
	maxText       = 2048 // bytes of one value
)

const codeInvalid = "policy.iam_invalid"

// Ref names a principal or a group as policies do.
type Ref struct {
	Kind string // Group, User, Service or Token
	ID   string
}

// Options say what the policy is imported as.
type Options struct {
	Namespace ident.Namespace
	// Prefix begins the ids of the policies, "iam" by default.
	Prefix string
	// Attached is whose policy it is: statements without a Principal are about it. A role becomes a Group.
	Attached *Ref
	// Principals are the principals that the policy names, by their ARN, account or service, as they stand in it.
	Principals map[string]Ref
	// AllowPublic lets an Allow for everybody ("*") be carried over.
	AllowPublic bool
}

// Note is something about a statement that a person must know.
type Note struct {
	Sid     string
	Pointer string // in the JSON
	Reason  string
}

// Result is what became of an IAM policy.
type Result struct {
	// Text is the policies in Cedar; empty when nothing was carried over.
	Text []byte
	// Members are those that a trust policy lets assume the role: they belong in its group.
	Members []Ref
	// Refused are the statements that were not carried over, and Warnings what changed in those that were.
	Refused, Warnings []Note
}

// Import turns an IAM policy, of an identity or a role's trust, into policies of a namespace. The error is a problem
// when the JSON is not an IAM policy; what is one and cannot be carried over is in Refused.
func Import(name string, text []byte, o Options) (*Result, error) {
	doc, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	if o.Prefix == "" {
		o.Prefix = "iam"
	}
	im := &importer{options: o, result: &Result{}}
	im.document(doc)
	if im.lostDeny {
		im.dropAllows()
	}
	im.result.Text = im.text()
	if len(im.result.Text) == 0 {
		return im.result, nil
	}
	// The names are from outside, so this may fail for a reason of theirs, such as too long a prefix.
	if _, err := policy.New(policy.File{Name: name, Text: im.result.Text, Namespace: o.Namespace}); err != nil {
		return nil, fmt.Errorf("validate the imported policies: %w", err)
	}
	return im.result, nil
}

// importer makes the policies of a document.
type importer struct {
	options  Options
	result   *Result
	made     []made
	lostDeny bool
	at       *statement
}

// made is a policy that was carried over.
type made struct {
	permit    bool
	statement *statement
	tree      *ast.Policy
}

// errRefused stops a statement; what it was refused for is noted already.
var errRefused = errors.New("refused")

func (im *importer) document(doc *document) {
	for i := range doc.statements {
		im.at = &doc.statements[i]
		before := len(im.made)
		if err := im.statement(); err != nil {
			im.made = im.made[:before]
			if !im.at.allow {
				im.lostDeny = true
			}
		}
	}
}

// dropAllows refuses every Allow, because a Deny was.
func (im *importer) dropAllows() {
	var kept []made
	var last *statement
	for _, m := range im.made {
		if !m.permit {
			kept = append(kept, m)
		} else if m.statement != last {
			last, im.at = m.statement, m.statement
			im.result.Refused = append(im.result.Refused,
				im.note("", "a Deny of this document cannot be carried over, so no Allow is: it could open what the Deny kept closed"))
		}
	}
	im.made = kept
	if len(im.result.Members) > 0 {
		im.result.Members = nil
		im.at = &statement{pointer: "/Statement"}
		im.result.Refused = append(im.result.Refused,
			im.note("", "a Deny of this document cannot be carried over, so nobody becomes a member of the role"))
	}
}

// refuse notes why the statement is not carried over.
func (im *importer) refuse(pointer, format string, args ...any) error {
	im.result.Refused = append(im.result.Refused, im.note(pointer, format, args...))
	return errRefused
}

// warn notes a change. Each is said once for a statement.
func (im *importer) warn(pointer, format string, args ...any) {
	if n := im.note(pointer, format, args...); !slices.Contains(im.result.Warnings, n) {
		im.result.Warnings = append(im.result.Warnings, n)
	}
}

func (im *importer) note(pointer, format string, args ...any) Note {
	return Note{Sid: im.at.sid, Pointer: im.at.pointer + pointer, Reason: fmt.Sprintf(format, args...)}
}

// statement carries a statement over: one policy for each action here and each principal.
func (im *importer) statement() error {
	s := im.at
	principals, err := im.principals()
	if err != nil {
		return err
	}
	if s.trusts() {
		return im.trust(principals)
	}
	actions, err := im.actions()
	if err != nil {
		return err
	}
	before := len(im.made)
	for _, a := range actions {
		if err := im.action(a, principals); err != nil {
			return err
		}
	}
	if s.allow && len(im.made) == before {
		return im.refuse("", "it allows nothing that there is here")
	}
	return nil
}

// action makes the policies of one action here.
func (im *importer) action(a *entry, principals []Ref) error {
	target, err := im.target(a)
	if err != nil || target == nothing {
		return err
	}
	conditions, never, err := im.conditions(a)
	if err != nil || never {
		return err
	}
	for _, p := range principals {
		tree := ast.Forbid()
		if im.at.allow {
			tree = ast.Permit()
		}
		switch p.Kind {
		case "":
		case "Group":
			tree = tree.PrincipalIn(p.uid())
		default:
			tree = tree.PrincipalEq(p.uid())
		}
		tree = target.apply(tree.ActionEq(cedar.NewEntityUID("Action", cedar.String(a.action))))
		for _, c := range conditions {
			tree = tree.When(c)
		}
		im.made = append(im.made, made{im.at.allow, im.at, tree})
	}
	return nil
}

func (r Ref) uid() cedar.EntityUID {
	return cedar.NewEntityUID(cedar.EntityType(r.Kind), cedar.String(r.ID))
}

func (r Ref) valid() bool {
	return slices.Contains([]string{"Group", "User", "Service", "Token"}, r.Kind) && r.ID != "" && len(r.ID) <= maxText
}

// everybody is the principal of a policy that names none.
var everybody = []Ref{{}}

// principals are those that the statement is about.
func (im *importer) principals() ([]Ref, error) {
	s := im.at
	switch {
	case s.notPrincipal && s.allow:
		return nil, im.refuse("/NotPrincipal", "an Allow for everybody but some cannot be made narrower")
	case s.notPrincipal:
		im.warn("/NotPrincipal", "the Deny is for everybody now, the exceptions too")
		return everybody, nil
	case !s.hasPrincipal && im.options.Attached == nil:
		return nil, im.refuse("", "it has no Principal; say whom the policy is attached to")
	case !s.hasPrincipal && !im.options.Attached.valid():
		return nil, im.refuse("", "whom the policy is attached to is no principal: %s %q", im.options.Attached.Kind, im.options.Attached.ID)
	case !s.hasPrincipal:
		return []Ref{*im.options.Attached}, nil
	}
	var list []Ref
	for _, p := range s.principals {
		ref, known := im.options.Principals[p.text]
		switch {
		case p.text == "*" && s.allow && !im.options.AllowPublic:
			return nil, im.refuse(p.pointer, "it allows everybody; say that you mean it")
		case p.text == "*":
			return everybody, nil
		case known && ref.valid():
			list = append(list, ref)
		case s.allow:
			return nil, im.refuse(p.pointer, "nobody here is known as %q; say who that is", p.text)
		default:
			im.warn(p.pointer, "nobody here is known as %q; the Deny is for everybody now", p.text)
			return everybody, nil
		}
	}
	return list, nil
}

// trust takes a statement of a trust policy: who may assume the role belongs to its group.
func (im *importer) trust(principals []Ref) error {
	s := im.at
	switch {
	case !s.allow:
		return im.refuse("", "who is kept from assuming a role cannot be said of a group: leave them out of it")
	case len(s.conditions) > 0:
		return im.refuse("/Condition", "membership in a group has no conditions; put them into the policies of the group")
	}
	for _, p := range principals {
		if p.Kind == "" || p.Kind == "Group" {
			return im.refuse("/Principal", "everybody, or a group, cannot be a member of a group")
		}
		if !slices.Contains(im.result.Members, p) {
			im.result.Members = append(im.result.Members, p)
		}
	}
	return nil
}

// text renders the policies, each with an id and where it is from.
func (im *importer) text() []byte {
	var b bytes.Buffer
	for i, m := range im.made {
		tree := m.tree.Annotate("id", cedar.String(fmt.Sprintf("%s-%d", im.options.Prefix, i+1)))
		tree = tree.Annotate("from", cedar.String(strings.TrimSpace(m.statement.pointer+" "+m.statement.sid)))
		if i > 0 {
			b.WriteString("\n\n")
		}
		b.Write(cedar.NewPolicyFromAST(tree).MarshalCedar())
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	return b.Bytes()
}

func invalid(name, pointer, format string, args ...any) error {
	return problem.New(problem.Invalid, codeInvalid, "%s is not an IAM policy", name).
		WithFaults(problem.Fault{File: name, Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
}
