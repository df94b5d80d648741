// Package policy decides: may this principal do this action on this resource? It is the one place
// that does, with Cedar.
//
// Everything is denied that no policy permits, and an error while deciding is a deny. The built-in
// policies are validated against the schema when the Set is made. Decide is pure: it reads no
// clock, no store and no request. Only access calls it.
//
// Source: the Cedar policy language, https://docs.cedarpolicy.com.
package policy

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"sallyport/internal/ident"
)

// Action is what a principal wants to do.
type Action string

// The actions.
const (
	Publish             Action = "publish"
	Invoke              Action = "invoke"
	ReadEvents          Action = "readEvents"
	ReadEventData       Action = "readEventData"
	Deploy              Action = "deploy"
	ReadFunctions       Action = "readFunctions"
	ReadLogs            Action = "readLogs"
	ManageSubscriptions Action = "manageSubscriptions"
	ReadDeadLetters     Action = "readDeadLetters"
	ManageDeadLetters   Action = "manageDeadLetters"
	ReadStatus          Action = "readStatus"
	ReadMetrics         Action = "readMetrics"
	ManageTokens        Action = "manageTokens"
	ReadPolicies        Action = "readPolicies"
)

// Role is what a token may do, before its namespace and its event types narrow it.
type Role string

// The roles.
const (
	Operator  Role = "operator"
	Developer Role = "developer"
	Publisher Role = "publisher"
	Reader    Role = "reader"
)

// Actions returns all actions.
func Actions() []Action {
	return []Action{
		Publish, Invoke, ReadEvents, ReadEventData, Deploy, ReadFunctions, ReadLogs, ManageSubscriptions,
		ReadDeadLetters, ManageDeadLetters, ReadStatus, ReadMetrics, ManageTokens, ReadPolicies,
	}
}

// Roles returns all roles.
func Roles() []Role { return []Role{Operator, Developer, Publisher, Reader} }

// Kind is the kind of an entity.
type Kind string

// The kinds of principals (Token, Function) and of resources (all but Token).
const (
	KindToken     Kind = "Token"
	KindFunction  Kind = "Function"
	KindEventType Kind = "EventType"
	KindNamespace Kind = "Namespace"
	KindServer    Kind = "Server"
)

// Principal is who acts.
type Principal struct {
	Kind      Kind
	ID        ident.PrincipalID
	Role      Role            // of a token
	Namespace ident.Namespace // "": of the whole server
	// EventTypes are those a function's grants name, or those a token is limited to.
	EventTypes []ident.EventType
}

// Resource is what is acted on. It is comparable, so that decisions can be remembered.
type Resource struct {
	Kind      Kind
	Namespace ident.Namespace
	Name      string
}

// OfNamespace returns the resource that a whole namespace is.
func OfNamespace(ns ident.Namespace) Resource {
	return Resource{Kind: KindNamespace, Namespace: ns, Name: string(ns)}
}

// OfServer returns the resource that the server itself is.
func OfServer() Resource { return Resource{Kind: KindServer, Name: "server"} }

// Decision is the answer. The zero Decision is a deny.
type Decision struct {
	Allowed bool
	// Policies are the ids of the determining policies, sorted; empty when nothing permits.
	Policies []string
}

//go:embed builtin.cedar
var builtinText []byte

//go:embed schema.cedarschema
var schemaText []byte

// Set is a set of policies. It is immutable and safe for concurrent use.
type Set struct {
	policies *cedar.PolicySet
	// asks holds every question there is: what the schema does not know is denied before Cedar, whose
	// permits may be for any action.
	asks map[ask]bool
}

// ask is a kind of question: may a principal of this kind do this to a resource of this kind?
type ask struct {
	principal Kind
	action    Action
	resource  Kind
}

// New returns the built-in policies.
func New() (*Set, error) { return parse(builtinText) }

// parse reads policies, each with an @id of its own, and validates them against the schema.
func parse(text []byte) (*Set, error) {
	known, err := readSchema()
	if err != nil {
		return nil, err
	}
	list, err := cedar.NewPolicyListFromBytes("builtin.cedar", text)
	if err != nil {
		return nil, fmt.Errorf("parse policies: %w", err)
	}
	validator := validate.New(known)
	set := cedar.NewPolicySet()
	var errs []error
	for _, p := range list {
		id := string(p.Annotations()["id"])
		if id == "" || !set.Add(cedar.PolicyID(id), p) {
			errs = append(errs, fmt.Errorf("policy at %v has no @id of its own", p.Position()))
		}
		if err := validator.Policy(id, (*xast.Policy)(p.AST())); err != nil {
			errs = append(errs, fmt.Errorf("policy %q: %w", id, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	asks, err := questions(known)
	if err != nil {
		return nil, err
	}
	return &Set{policies: set, asks: asks}, nil
}

func readSchema() (*resolved.Schema, error) {
	var s schema.Schema
	s.SetFilename("schema.cedarschema")
	if err := s.UnmarshalCedar(schemaText); err != nil {
		return nil, fmt.Errorf("parse policy schema: %w", err)
	}
	out, err := s.Resolve()
	if err != nil {
		return nil, fmt.Errorf("resolve policy schema: %w", err)
	}
	return out, nil
}

// questions returns what the schema lets be asked. Each Action of this package is in it, and
// nothing else.
func questions(s *resolved.Schema) (map[ask]bool, error) {
	asks := map[ask]bool{}
	known := map[types.EntityUID]bool{}
	for _, a := range Actions() {
		uid := cedar.NewEntityUID("Action", cedar.String(a))
		known[uid] = true
		def, ok := s.Actions[uid]
		if !ok || def.AppliesTo == nil {
			return nil, fmt.Errorf("policy schema does not say what the action %q applies to", a)
		}
		for _, p := range def.AppliesTo.Principals {
			for _, r := range def.AppliesTo.Resources {
				asks[ask{Kind(p), a, Kind(r)}] = true
			}
		}
	}
	for uid := range s.Actions {
		if !known[uid] {
			return nil, fmt.Errorf("policy schema has the unknown action %v", uid)
		}
	}
	return asks, nil
}

// Decide returns whether p may do a on r, and by which policies. A question that the schema does not
// know, such as one about an unknown action, is denied by no policy.
func (s *Set) Decide(p Principal, a Action, r Resource) Decision {
	if !s.asks[ask{p.Kind, a, r.Kind}] {
		return Decision{}
	}
	principal, resource := entity(p), resourceEntity(r)
	allowed, diagnostic := s.policies.IsAuthorized(
		types.EntityMap{principal.UID: principal, resource.UID: resource},
		cedar.Request{
			Principal: principal.UID, Action: cedar.NewEntityUID("Action", cedar.String(a)), Resource: resource.UID,
			Context: cedar.NewRecord(nil),
		})
	d := Decision{Allowed: allowed == cedar.Allow}
	for _, reason := range diagnostic.Reasons {
		d.Policies = append(d.Policies, string(reason.PolicyID))
	}
	for _, e := range diagnostic.Errors {
		// Cedar passes over a policy that fails. That is safe for a permit; a forbid might have denied.
		if s.policies.Get(e.PolicyID).Effect() != cedar.Forbid {
			continue
		}
		if d.Allowed {
			d = Decision{} // what permitted it determines nothing any more
		}
		d.Policies = append(d.Policies, string(e.PolicyID))
	}
	slices.Sort(d.Policies)
	return d
}

func entity(p Principal) cedar.Entity {
	set := make([]types.Value, len(p.EventTypes))
	for i, t := range p.EventTypes {
		set[i] = cedar.String(t)
	}
	attributes := cedar.RecordMap{"namespace": cedar.String(p.Namespace), "eventTypes": cedar.NewSet(set...)}
	if p.Kind == KindFunction {
		attributes["name"] = cedar.String(p.ID)
	} else {
		attributes["role"] = cedar.String(p.Role)
		attributes["limited"] = cedar.Boolean(len(p.EventTypes) > 0)
	}
	return cedar.Entity{
		UID:        cedar.NewEntityUID(cedar.EntityType(p.Kind), cedar.String(p.ID)),
		Attributes: cedar.NewRecord(attributes),
	}
}

func resourceEntity(r Resource) cedar.Entity {
	return cedar.Entity{
		// A resource's name may be a principal's id too: the prefix keeps the two apart.
		UID: cedar.NewEntityUID(cedar.EntityType(r.Kind), cedar.String("resource:"+string(r.Namespace)+"/"+r.Name)),
		Attributes: cedar.NewRecord(cedar.RecordMap{
			"name": cedar.String(r.Name), "namespace": cedar.String(r.Namespace), "eventTypes": cedar.NewSet(),
		}),
	}
}
