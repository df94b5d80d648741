package iam

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// document is an IAM policy.
type document struct{ statements []statement }

// statement is one statement of it. Of each pair such as Action and NotAction it has one.
type statement struct {
	pointer      string
	sid          string
	allow        bool
	hasPrincipal bool // Principal or NotPrincipal
	notPrincipal bool
	principals   []value
	notAction    bool
	actions      []value
	notResource  bool
	resources    []value
	hasResource  bool
	conditions   []condition
}

// value is a text and where it stands, within the statement.
type value struct{ text, pointer string }

// condition is one operator on one key.
type condition struct {
	operator, key string
	values        []string
	pointer       string
}

// trusts reports whether the statement is about assuming a role, and nothing else.
func (s *statement) trusts() bool {
	for _, a := range s.actions {
		if !strings.HasPrefix(strings.ToLower(a.text), "sts:assumerole") {
			return false
		}
	}
	return !s.notAction
}

// jsonDocument and jsonStatement are the JSON form.
type jsonDocument struct {
	Version   string          `json:"Version"`
	ID        string          `json:"Id"`
	Statement oneOrMoreStates `json:"Statement"`
}

type jsonStatement struct {
	Sid          string                      `json:"Sid"`
	Effect       string                      `json:"Effect"`
	Principal    *principals                 `json:"Principal"`
	NotPrincipal *principals                 `json:"NotPrincipal"`
	Action       texts                       `json:"Action"`
	NotAction    texts                       `json:"NotAction"`
	Resource     texts                       `json:"Resource"`
	NotResource  texts                       `json:"NotResource"`
	Condition    map[string]map[string]texts `json:"Condition"`
}

// oneOrMoreStates is a statement, or a list of them.
type oneOrMoreStates []jsonStatement

// UnmarshalJSONFrom reads either form.
func (s *oneOrMoreStates) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '[' {
		var one jsonStatement
		err := json.UnmarshalDecode(d, &one)
		*s = oneOrMoreStates{one}
		return err
	}
	return json.UnmarshalDecode(d, (*[]jsonStatement)(s))
}

// texts is a text, or a list of them; numbers and truth values are read as they stand.
type texts []string

var errTooMany = errors.New("too many or too long values")

// UnmarshalJSONFrom reads either form.
func (t *texts) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '[' {
		return t.one(d)
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != ']' {
		if err := t.one(d); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

func (t *texts) one(d *jsontext.Decoder) error {
	token, err := d.ReadToken()
	if err != nil {
		return err
	}
	switch token.Kind() {
	case '"', '0', 't', 'f':
	default:
		return fmt.Errorf("want a text or a list of texts, not %s", token.Kind())
	}
	if len(*t) >= maxValues || len(token.String()) > maxText {
		return errTooMany
	}
	*t = append(*t, token.String())
	return nil
}

// principals are those of a statement: "*", or lists by their kind.
type principals struct {
	all  bool
	kind map[string]texts
}

// UnmarshalJSONFrom reads either form.
func (p *principals) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == '{' {
		return json.UnmarshalDecode(d, &p.kind)
	}
	var t texts
	if err := t.one(d); err != nil {
		return err
	}
	if t[0] != "*" {
		return errors.New(`want "*" or an object such as {"AWS": …}`)
	}
	p.all = true
	return nil
}

// parse reads a document. What JSON alone does not say is checked here: unknown and repeated names are refused.
func parse(name string, text []byte) (*document, error) {
	if len(text) > MaxBytes {
		return nil, invalid(name, "", "it is %d bytes, at most %d are allowed", len(text), MaxBytes)
	}
	d := jsontext.NewDecoder(bytes.NewReader(text))
	var in jsonDocument
	err := json.UnmarshalDecode(d, &in, json.RejectUnknownMembers(true))
	if err == nil {
		if _, more := d.ReadToken(); !errors.Is(more, io.EOF) {
			return nil, invalid(name, "", "something follows the policy")
		}
	}
	if err != nil {
		return nil, invalid(name, place(err), "%v", reason(err))
	}
	if in.Version != "2012-10-17" && in.Version != "2008-10-17" {
		return nil, invalid(name, "/Version", `want "2012-10-17"`)
	}
	if n := len(in.Statement); n == 0 || n > maxStatements {
		return nil, invalid(name, "/Statement", "%d statements, want 1 to %d", n, maxStatements)
	}
	out := &document{}
	for i := range in.Statement {
		s, detail := in.Statement[i].statement(i)
		if detail != "" {
			return nil, invalid(name, s.pointer, "%s", detail)
		}
		out.statements = append(out.statements, s)
	}
	return out, nil
}

// place is the JSON pointer of an error, when it has one.
func place(err error) string {
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		return string(e.JSONPointer)
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return string(e.JSONPointer)
	}
	return ""
}

// reason is what is wrong, without the words of the library around it.
func reason(err error) error {
	if e, ok := errors.AsType[*json.SemanticError](err); ok && e.Err != nil {
		return reason(e.Err)
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok && e.Err != nil {
		return e.Err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the text ends too early")
	}
	return err
}

// statement checks a statement. The detail says what is wrong with it.
func (in *jsonStatement) statement(i int) (s statement, detail string) {
	s = statement{pointer: fmt.Sprintf("/Statement/%d", i), sid: in.Sid}
	switch in.Effect {
	case "Allow":
		s.allow = true
	case "Deny":
	default:
		return s, `Effect is neither "Allow" nor "Deny"`
	}
	switch {
	case len(in.Sid) > maxText:
		return s, "the Sid is too long"
	case (in.Action == nil) == (in.NotAction == nil):
		return s, "want either Action or NotAction"
	case in.Resource != nil && in.NotResource != nil:
		return s, "want either Resource or NotResource"
	case in.Principal != nil && in.NotPrincipal != nil:
		return s, "want either Principal or NotPrincipal"
	}
	s.notAction, s.actions = in.NotAction != nil, values("/Action", in.Action)
	if s.notAction {
		s.actions = values("/NotAction", in.NotAction)
	}
	s.notResource, s.resources = in.NotResource != nil, values("/Resource", in.Resource)
	if s.notResource {
		s.resources = values("/NotResource", in.NotResource)
	}
	s.hasResource = in.Resource != nil || in.NotResource != nil
	s.hasPrincipal, s.notPrincipal = in.Principal != nil || in.NotPrincipal != nil, in.NotPrincipal != nil
	if p := in.Principal; p != nil {
		s.principals = p.values()
	}
	s.conditions = in.list()
	if s.hasPrincipal && !s.notPrincipal && len(s.principals) == 0 {
		return s, "Principal is empty"
	}
	return s, ""
}

func values(pointer string, list texts) []value {
	out := make([]value, len(list))
	for i, t := range list {
		out[i] = value{t, pointer}
	}
	return out
}

func (p *principals) values() []value {
	if p.all {
		return []value{{"*", "/Principal"}}
	}
	var out []value
	for _, kind := range sorted(p.kind) {
		out = append(out, values("/Principal/"+escape(kind), p.kind[kind])...)
	}
	return out
}

// list is the conditions in a stable order.
func (in *jsonStatement) list() []condition {
	var out []condition
	for _, operator := range sorted(in.Condition) {
		for _, key := range sorted(in.Condition[operator]) {
			out = append(out, condition{operator, key, in.Condition[operator][key], "/Condition/" + escape(operator) + "/" + escape(key)})
		}
	}
	return out
}

// escape makes a name a part of a JSON pointer.
func escape(name string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(name) }
