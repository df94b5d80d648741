package policy

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"

	"sallyport/internal/ident"
)

// Most conditions are comparisons of an attribute with a constant. To have Cedar evaluate them, the request must first be made into
// Cedar's records, whose maps and digests cost several times what the evaluation does. A quick condition is the same condition
// over the request as it is. It answers yes or no only where Cedar would without any doubt; for everything else, an error among it,
// it is unsure, and Cedar is asked. So it never says why something failed, and no condition needs to be known to it:
// decisions/0028.

// answer is that of a quick condition.
type answer uint8

// The answers.
const (
	unsure answer = iota // Cedar has to be asked
	no
	yes
)

func truth(b bool) answer {
	if b {
		return yes
	}
	return no
}

func (v answer) not() answer {
	switch v {
	case yes:
		return no
	case no:
		return yes
	case unsure:
	}
	return unsure
}

// quickTest is a condition, or a part of one, and quickValue a part that is no truth.
type (
	quickTest  func(*quickRequest) answer
	quickValue func(*quickRequest) scalar
)

// quickRequest is what quick conditions look at.
type quickRequest struct {
	principal *Principal
	id        string // of the principal in policies
	resource  *Resource
	context   *Context
	// same says that the principal and the resource are one entity.
	same bool
}

// scalar is a value that quick conditions compare: the one that its kind says. The zero scalar is unsure.
type scalar struct {
	kind   scalarKind
	truth  bool
	number int64
	text   string
}

type scalarKind uint8

const (
	scalarUnsure scalarKind = iota
	scalarTruth
	scalarNumber
	scalarText
)

func textOf(s string) scalar { return scalar{kind: scalarText, text: s} }
func truthOf(b bool) scalar  { return scalar{kind: scalarTruth, truth: b} }

// textUnlessEmpty is of an attribute that is not there when it is empty.
func textUnlessEmpty(s string) scalar {
	if s == "" {
		return scalar{}
	}
	return textOf(s)
}

// quickly returns what a policy's conditions say of a request that is in its scope.
func (c *compiled) quickly(r *quickRequest, loose bool) answer {
	tests := c.quick
	if loose {
		tests = c.quickLoose
	}
	// As Cedar does it: one after another, and none after one that does not hold.
	for _, test := range tests {
		if v := test(r); v != yes {
			return v
		}
	}
	return yes
}

// quickTests returns the conditions of a policy in their quick form.
func quickTests(p *xast.Policy) []quickTest {
	tests := make([]quickTest, len(p.Conditions))
	for i, c := range p.Conditions {
		tests[i] = quickTestOf(c.Body)
		if c.Condition == xast.ConditionUnless {
			tests[i] = not(tests[i])
		}
	}
	return tests
}

func not(t quickTest) quickTest { return func(r *quickRequest) answer { return t(r).not() } }

func quickTestOf(n xast.IsNode) quickTest {
	switch n := n.(type) {
	case xast.NodeTypeAnd:
		return quickAnd(quickTestOf(n.Left), quickTestOf(n.Right))
	case xast.NodeTypeOr:
		return not(quickAnd(not(quickTestOf(n.Left)), not(quickTestOf(n.Right))))
	case xast.NodeTypeNot:
		return not(quickTestOf(n.Arg))
	case xast.NodeTypeHas:
		return quickHas(n)
	case xast.NodeTypeEquals:
		return quickEquals(n.BinaryNode)
	case xast.NodeTypeNotEquals:
		return not(quickEquals(n.BinaryNode))
	case xast.NodeTypeLessThan:
		return quickLess(n.Left, n.Right)
	case xast.NodeTypeGreaterThan:
		return quickLess(n.Right, n.Left)
	case xast.NodeTypeLessThanOrEqual:
		return not(quickLess(n.Right, n.Left))
	case xast.NodeTypeGreaterThanOrEqual:
		return not(quickLess(n.Left, n.Right))
	case xast.NodeTypeLike:
		return quickLike(n)
	case xast.NodeTypeContains:
		return quickContains(n)
	case xast.NodeTypeExtensionCall:
		return quickInRange(n)
	}
	value := quickValueOf(n)
	return func(r *quickRequest) answer {
		if v := value(r); v.kind == scalarTruth {
			return truth(v.truth)
		}
		return unsure
	}
}

func quickAnd(left, right quickTest) quickTest {
	return func(r *quickRequest) answer {
		if v := left(r); v != yes {
			return v
		}
		return right(r)
	}
}

func quickEquals(n xast.BinaryNode) quickTest {
	left, right := quickValueOf(n.Left), quickValueOf(n.Right)
	return func(r *quickRequest) answer {
		a, b := left(r), right(r)
		if a.kind == scalarUnsure || a.kind != b.kind {
			return unsure
		}
		return truth(a == b)
	}
}

func quickLess(left, right xast.IsNode) quickTest {
	a, b := quickValueOf(left), quickValueOf(right)
	return func(r *quickRequest) answer {
		x, y := a(r), b(r)
		if x.kind != scalarNumber || y.kind != scalarNumber {
			return unsure
		}
		return truth(x.number < y.number)
	}
}

func quickLike(n xast.NodeTypeLike) quickTest {
	value := quickValueOf(n.Arg)
	return func(r *quickRequest) answer {
		if v := value(r); v.kind == scalarText {
			return truth(n.Value.Match(types.String(v.text)))
		}
		return unsure
	}
}

// quickInRange is context.ip.isInRange(ip("…")).
func quickInRange(n xast.NodeTypeExtensionCall) quickTest {
	if n.Name != "isInRange" || len(n.Args) != 2 || !isPath(n.Args[0], "context", "ip") {
		return dontKnow
	}
	call, ok := n.Args[1].(xast.NodeTypeExtensionCall)
	if !ok || call.Name != "ip" || len(call.Args) != 1 {
		return dontKnow
	}
	literal, ok := call.Args[0].(xast.NodeValue)
	if !ok {
		return dontKnow
	}
	text, ok := literal.Value.(types.String)
	if !ok {
		return dontKnow
	}
	within, err := types.ParseIPAddr(string(text))
	if err != nil {
		return dontKnow
	}
	return func(r *quickRequest) answer {
		if at, ok := r.context.address(); ok {
			return truth(within.Contains(types.IPAddr(at)))
		}
		return unsure
	}
}

func dontKnow(*quickRequest) answer { return unsure }

// address returns the address that policies see.
func (c *Context) address() (netip.Prefix, bool) {
	if !c.IP.IsValid() {
		return netip.Prefix{}, false
	}
	// An IPv4 address in IPv6 clothes is in the ranges that policies name in IPv4.
	ip := c.IP.Unmap().WithZone("")
	at, err := ip.Prefix(ip.BitLen())
	return at, err == nil
}

// path returns the variable and the attributes that an expression such as principal.claims.tenant names.
func path(n xast.IsNode) (variable string, attributes []string) {
	switch n := n.(type) {
	case xast.NodeTypeVariable:
		return string(n.Name), nil
	case xast.NodeTypeAccess:
		if variable, attributes = path(n.Arg); variable != "" {
			return variable, append(attributes, string(n.Value))
		}
	}
	return "", nil
}

func isPath(n xast.IsNode, variable string, attributes ...string) bool {
	v, a := path(n)
	return v == variable && slices.Equal(a, attributes)
}

func quickValueOf(n xast.IsNode) quickValue {
	if v, ok := n.(xast.NodeValue); ok {
		constant := constantOf(v.Value)
		return func(*quickRequest) scalar { return constant }
	}
	variable, attributes := path(n)
	switch {
	case len(attributes) == 1 && variable == "principal":
		name := attributes[0]
		return func(r *quickRequest) scalar { return r.principal.attribute(name, r.id) }
	case len(attributes) == 1 && variable == "resource":
		name := attributes[0]
		return func(r *quickRequest) scalar {
			if r.same {
				return scalar{}
			}
			return r.resource.attribute(name)
		}
	case len(attributes) == 1 && variable == "context":
		name := attributes[0]
		return func(r *quickRequest) scalar { return r.context.attribute(name) }
	case len(attributes) == 2 && variable == "context" && attributes[0] == "event":
		name := attributes[1]
		return func(r *quickRequest) scalar { return r.context.Event.attribute(name) }
	case len(attributes) == 2 && variable == "principal" && attributes[0] == "claims":
		name := attributes[1]
		return func(r *quickRequest) scalar {
			if r.principal.Kind == KindFunction {
				return scalar{}
			}
			return r.principal.Claims.attribute(name)
		}
	}
	return func(*quickRequest) scalar { return scalar{} }
}

func constantOf(v types.Value) scalar {
	switch v := v.(type) {
	case types.String:
		return textOf(string(v))
	case types.Long:
		return scalar{kind: scalarNumber, number: int64(v)}
	case types.Boolean:
		return truthOf(bool(v))
	}
	return scalar{}
}

// attribute returns an attribute of the entity of p that is one value, as Principal.entity makes it.
func (p *Principal) attribute(name, id string) scalar {
	function := p.Kind == KindFunction
	switch {
	case name == "namespace":
		return textOf(string(p.Namespace))
	case function && name == "name":
		return textOf(p.functionName(id))
	case function && name == "revision":
		return textUnlessEmpty(p.Revision)
	case !function && name == "role":
		return textOf(string(p.Role))
	case !function && name == "limited":
		return truthOf(len(p.EventTypes) > 0)
	case !function && name == "attenuated":
		return truthOf(p.Attenuated)
	}
	return scalar{}
}

// attribute returns an attribute of the entity of r, as Resource.entity makes it. What a grant has is left to that.
func (r *Resource) attribute(name string) scalar {
	switch {
	case name == "namespace":
		return textOf(string(r.Namespace))
	case name == "name" && r.Kind != KindGrant:
		return textOf(r.Name)
	}
	return scalar{}
}

// attribute returns a part of the context that is one value, as Context.record makes it.
func (c *Context) attribute(name string) scalar {
	switch {
	case name == "tls" && c.Transport != TransportUnknown:
		return truthOf(c.Transport != TransportPlaintext)
	case name == "mtls" && c.Transport != TransportUnknown && c.Transport != TransportUnkept:
		return truthOf(c.Transport == TransportMutualTLS)
	case name == "op":
		return textUnlessEmpty(c.Op)
	}
	return scalar{}
}

func (e *Event) attribute(name string) scalar {
	if e == nil {
		return scalar{}
	}
	switch name {
	case "type":
		return textOf(e.Type)
	case "source":
		return textOf(e.Source)
	case "subject":
		return textUnlessEmpty(e.Subject)
	case "size":
		return scalar{kind: scalarNumber, number: e.Size}
	}
	return scalar{}
}

func (c *Claims) attribute(name string) scalar {
	if c == nil {
		return scalar{}
	}
	switch name {
	case "issuer":
		return textOf(c.Issuer)
	case "tenant":
		return textUnlessEmpty(c.Tenant)
	case "strength":
		return textUnlessEmpty(c.Strength)
	}
	return scalar{}
}

// quickHas is whether something has an attribute.
func quickHas(n xast.NodeTypeHas) quickTest {
	name := string(n.Value)
	switch {
	case isPath(n.Arg, "principal"):
		return func(r *quickRequest) answer { return r.principal.has(name) }
	case isPath(n.Arg, "context"):
		return func(r *quickRequest) answer { return r.context.has(name) }
	case isPath(n.Arg, "context", "event"):
		return func(r *quickRequest) answer {
			if r.context.Event == nil {
				return unsure
			}
			return truth(r.context.Event.attribute(name).kind != scalarUnsure)
		}
	case isPath(n.Arg, "principal", "claims"):
		return func(r *quickRequest) answer {
			if r.principal.Kind == KindFunction || r.principal.Claims == nil {
				return unsure
			}
			return r.principal.Claims.has(name)
		}
	}
	return dontKnow
}

func (p *Principal) has(name string) answer {
	if p.Kind == KindFunction {
		switch name {
		case "name", "namespace", "eventTypes", "secrets", "reveals":
			return yes
		case "grants", "invokes":
			return truth(len(p.Grants) > 0)
		case "revision":
			return truth(p.Revision != "")
		case "role", "owns", "claims", "limited", "attenuated":
			return no
		}
		return unsure
	}
	switch name {
	case "role", "namespace", "eventTypes", "limited", "attenuated":
		return yes
	case "owns":
		return truth(len(p.Owns) > 0)
	case "claims":
		return truth(p.Claims != nil)
	case "grants", "invokes", "secrets", "reveals", "revision", "name":
		return no
	}
	return unsure
}

func (c *Context) has(name string) answer {
	switch name {
	case "tls":
		return truth(c.Transport != TransportUnknown)
	case "ip":
		_, ok := c.address()
		return truth(ok)
	case "event":
		return truth(c.Event != nil)
	case "cause":
		return truth(c.Cause != nil)
	case "op":
		return truth(c.Op != "")
	}
	return unsure
}

func (c *Claims) has(name string) answer {
	switch name {
	case "issuer", "groups", "roles", "methods":
		return yes
	case "tenant":
		return truth(c.Tenant != "")
	case "strength":
		return truth(c.Strength != "")
	}
	return unsure
}

// quickContains is whether a set of the principal has a text.
func quickContains(n xast.NodeTypeContains) quickTest {
	variable, attributes := path(n.Left)
	value := quickValueOf(n.Right)
	if variable != "principal" {
		return dontKnow
	}
	var holds func(*Principal, string) answer
	switch {
	case len(attributes) == 1:
		name := attributes[0]
		holds = func(p *Principal, s string) answer { return p.holds(name, s) }
	case len(attributes) == 2 && attributes[0] == "claims":
		name := attributes[1]
		holds = func(p *Principal, s string) answer {
			if p.Kind == KindFunction || p.Claims == nil {
				return unsure
			}
			return p.Claims.holds(name, s)
		}
	default:
		return dontKnow
	}
	return func(r *quickRequest) answer {
		if v := value(r); v.kind == scalarText {
			return holds(r.principal, v.text)
		}
		return unsure
	}
}

func (p *Principal) holds(name, s string) answer {
	function := p.Kind == KindFunction
	switch {
	case name == "eventTypes":
		return truth(slices.Contains(p.EventTypes, ident.EventType(s)))
	case !function && name == "owns" && len(p.Owns) > 0:
		return truth(slices.Contains(p.Owns, ident.Namespace(s)))
	case function && name == "secrets":
		return truth(slices.Contains(p.Secrets, s))
	case function && name == "reveals":
		return truth(slices.Contains(p.Reveals, s))
	case function && name == "grants" && len(p.Grants) > 0:
		return truth(slices.Contains(p.Grants, s))
	case function && name == "invokes" && len(p.Grants) > 0:
		return truth(slices.Contains(p.Invokes, ident.FunctionName(s)))
	}
	return unsure
}

func (c *Claims) holds(name, s string) answer {
	switch name {
	case "groups":
		return truth(slices.Contains(c.Groups, s))
	case "roles":
		return truth(slices.Contains(c.Roles, s))
	case "methods":
		return truth(slices.Contains(c.Methods, s))
	}
	return unsure
}

// quickDecision is what quick conditions found, and what they leave to Cedar.
type quickDecision struct {
	permits, forbids, rest []*compiled
}

// workspace is what a decision needs room for, so that the next one finds it made: of all that a decision costs, memory that is new
// costs most, later, when it is collected.
type workspace struct {
	request                       Request
	about                         quickRequest
	world                         world
	scope, permits, forbids, rest [inline]*compiled
}

// workspaces are those that nothing uses now. A nil one makes each anew.
type workspaces struct{ free sync.Pool }

func (w *workspaces) take() *workspace {
	if w != nil {
		if one, ok := w.free.Get().(*workspace); ok {
			return one
		}
	}
	return &workspace{}
}

// give hands one back, and with it nothing of the request.
func (w *workspaces) give(one *workspace) {
	if w != nil {
		*one = workspace{}
		w.free.Put(one)
	}
}

// inScopeQuickly returns the policies whose scope a request is in, and what quick conditions say of each. It makes nothing of the
// request but the two names that the index is asked for. ok is false for what is malformed, or has a cause, which is Cedar's.
func (s *Set) inScopeQuickly(q *Request, loose bool, room *workspace) (scope []*compiled, d quickDecision, ok bool) {
	if !s.asks[ask{q.Principal.Kind, q.Action, q.Resource.Kind}] || !q.Resource.well() || q.Context.Cause != nil {
		return nil, d, false
	}
	p := s.principalIn(q)
	id, ok := p.well()
	if !ok {
		return nil, d, false
	}
	about := cedar.Request{Principal: cedar.NewEntityUID(cedar.EntityType(p.Kind), cedar.String(id)), Resource: q.Resource.uid()}
	scope = s.inScope(&about, q, room.scope[:0])
	r := &room.about
	*r = quickRequest{principal: p, id: id, resource: &q.Resource, context: &q.Context, same: about.Principal == about.Resource}
	d = quickDecision{permits: room.permits[:0], forbids: room.forbids[:0], rest: room.rest[:0]}
	for _, c := range scope {
		if loose && c.loose == nil {
			continue
		}
		switch c.quickly(r, loose) {
		case unsure:
			d.rest = append(d.rest, c)
		case yes:
			if c.permit {
				d.permits = append(d.permits, c)
			} else {
				d.forbids = append(d.forbids, c)
			}
		case no:
		}
	}
	return scope, d, true
}
